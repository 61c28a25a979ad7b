"""A local Kubernetes with Knative Serving: an API server, and pods that run what services say."""
