# The end of the Dockerfile of an action's image, after that of every runtime: OpenWhisk starts it, and posts to it.
LABEL lithops-mini=action
HEALTHCHECK NONE
EXPOSE 8080
ENTRYPOINT ["python3", "-P", "-m", "lithops_mini.worker.openwhisk_server"]
