"""lithops-mini aws: from an AWS account without anything to jobs that run there, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lithops_mini.cli.setup import ask, check_backends, profile_path, say, setup_options, tell, try_profile
from lithops_mini.errors import ConfigError

if TYPE_CHECKING:
    from lithops_mini.compute.aws_lambda import AwsLambdaOptions
    from lithops_mini.runtimes.aws_account import Account
    from lithops_mini.runtimes.aws_lambda import Functions
    from lithops_mini.runtimes.aws_stack import Stack

_PREFIX = "lithops-mini"
_LONGEST_ROLE = 64  # characters of a name


@click.group()
def aws() -> None:
    """Make what jobs need in an AWS account, and remove it.

    \b
    Examples:
      lithops-mini aws setup --region eu-central-1
      lithops-mini aws teardown
    """


_options = setup_options(
    "aws",
    click.option("--region", metavar="NAME", help="Region. Default: the one of AWS's own configuration."),
    click.option("--bucket", metavar="NAME", help="Bucket of the jobs. Default: lithops-mini-ACCOUNT-REGION."),
    click.option("--role", metavar="NAME", help="Role of the functions. Default: named after the bucket."),
)


@aws.command()
@_options
@click.option("--data", metavar="BUCKET", multiple=True, help="Bucket whose objects functions may read. Repeatable.")
@click.option("--cloudformation", is_flag=True, help="Make bucket, log group and role as a stack of CloudFormation.")
@click.option("--no-test", is_flag=True, help="Do not run `lithops-mini test` at the end.")
def setup(data: tuple[str, ...], cloudformation: bool, no_test: bool, yes: bool, dry_run: bool, **given: Any) -> None:
    """Make the bucket, the log group, the role and the function; write the profile; try it.

    What is there stays as it is, so it may be run again: after it was interrupted, or with other data buckets. A
    profile that is there is completed; it may say the region, an endpoint, or settings of the functions. A stack that
    is there is brought up to date, with --cloudformation or without.

    \b
    Examples:
      lithops-mini aws setup --dry-run
      lithops-mini aws setup --region eu-central-1 --data my-data
      lithops-mini aws setup -p prod --cloudformation --yes
    """
    from lithops_mini.cli.profile_file import write_profile
    from lithops_mini.runtimes.aws_account import policy
    from lithops_mini.runtimes.aws_stack import template

    place = _Place.find(**given, dry_run=dry_run)
    account, log_group = place.account, place.options.log_group
    buckets = list(data) or account.data_buckets(place.role)
    document = policy(place.bucket, buckets, account.log_group_arn(log_group))
    stacked = cloudformation or place.stack.there
    _tell(place, f"read by functions  {', '.join(buckets) or 'no other bucket'}", stacked=stacked)
    click.echo(f"The role permits this, and nothing else:\n{json.dumps(document, indent=2)}")
    if stacked and dry_run:
        click.echo(f"The template of the stack:\n{template()}")
    ask("Set it up?", yes=yes, dry_run=dry_run)
    if stacked:
        place.stack.settle()
        place.stack.make(place.parameters(buckets))
    else:
        account.make_bucket(place.bucket)
        account.make_log_group(log_group)
        account.make_role(place.role, document)
    if not dry_run:
        write_profile(place.file, place.profile, place.completed())
        click.echo(f"profile {place.profile} of {place.file} written")
    _deploy(place, dry_run)
    if not (dry_run or no_test):
        try_profile(place.file, place.profile)


@aws.command()
@_options
def teardown(yes: bool, dry_run: bool, **given: Any) -> None:
    """Remove what setup has made: functions, layers, logs, role, bucket and profile.

    A bucket, a role or a log group that was there before stays. So does a bucket with objects that are not of jobs. A
    stack that setup has made is deleted. It may be run again after it was interrupted.

    \b
    Examples:
      lithops-mini aws teardown --dry-run
      lithops-mini aws teardown -p prod --yes
    """
    from lithops_mini.cli.profile_file import write_profile

    place = _Place.find(**given, dry_run=dry_run)
    functions = place.functions()
    arn = place.options.role or place.account.role_arn(place.role)
    found = [each for each in functions.functions() if each["Role"] == arn]
    names = ", ".join(each["FunctionName"] for each in found) or "none"
    _tell(place, f"functions          {names}", stacked=place.stack.there)
    ask("Remove them, with all logs and all that jobs have stored?", yes=yes, dry_run=dry_run)
    for each in found:
        say("lambda:DeleteFunction", {"FunctionName": each["FunctionName"]})
    if not dry_run:
        functions.delete_functions(found)
    account, log_group = place.account, place.options.log_group
    steps: dict[str, Callable[[], bool]] = {
        f"log group {log_group}": lambda: account.remove_log_group(log_group),
        f"role {place.role}": lambda: account.remove_role(place.role),
        f"bucket {place.bucket}": lambda: account.remove_bucket(place.bucket),
    }
    if place.stack.there:
        if place.stack.parameters.get("MakeLogGroup") == "yes":
            del steps[f"log group {log_group}"]
        del steps[f"role {place.role}"]
        place.stack.remove()
    for name, remove in steps.items():
        if not remove():
            click.echo(f"kept the {name}: it is not of setup's making, or holds what is not of jobs")
    if not dry_run:
        write_profile(place.file, place.profile, place.bared())
        click.echo(f"profile {place.profile} of {place.file} is as before setup")


@dataclass(frozen=True)
class _Place:
    """An account, a profile, and the names of what is there, or is to be."""

    account: Account
    stack: Stack
    options: AwsLambdaOptions
    file: Path
    profile: str
    bucket: str
    role: str
    written: Mapping[str, Any]  # the profile, as it is in the file

    @staticmethod
    def find(
        *,
        config_file: str | None,
        profile: str,
        region: str | None,
        bucket: str | None,
        role: str | None,
        dry_run: bool,
    ) -> _Place:
        from lithops_mini.cli.profile_file import read_profile
        from lithops_mini.compute.aws_lambda import AwsLambdaOptions
        from lithops_mini.config import load
        from lithops_mini.runtimes.aws import Aws
        from lithops_mini.runtimes.aws_account import Account
        from lithops_mini.runtimes.aws_stack import Stack

        file = profile_path(config_file)
        written = read_profile(file, profile) or {}
        options = AwsLambdaOptions()
        if written:
            config = load(config_file=file, profile=profile)
            check_backends(config, f"{file}, profile {profile!r}", "aws_lambda", "aws_s3")
            options = config.compute_options
            bucket = bucket or (config.job.storage_bucket if "storage_bucket" in written else None)
            role = role or (options.role.rpartition("/")[2] if options.role else None)
        options = replace(options, region=region or options.region)
        aws = Aws(options)
        account = Account(aws, say, dry=dry_run)
        bucket = bucket or account.default_bucket
        if role is None:
            role = (bucket if bucket.startswith(_PREFIX) else f"{_PREFIX}-{bucket}")[:_LONGEST_ROLE]
        stack = Stack(aws, role, say, dry=dry_run)
        return _Place(account, stack, options, file, profile, bucket, role, written)

    def functions(self) -> Functions:
        from lithops_mini.compute.aws_lambda import AwsLambdaCompute

        role = self.account.role_arn(self.role)
        return AwsLambdaCompute(replace(self.options, role=role, region=self.account.region)).runtimes(self.bucket)

    def parameters(self, data: Sequence[str]) -> dict[str, str]:
        """Of the stack, which makes what is not there, and goes on having what it has made."""
        account, before, log_group = self.account, self.stack.parameters, self.options.log_group
        if not self.stack.there and account.has_role(self.role):
            raise ConfigError(
                f"there is a role {self.role}, which no stack has made: name another with --role, or remove what setup"
                " has made without --cloudformation, with lithops-mini aws teardown"
            )
        has = ("Bucket", self.bucket, account.has_bucket), ("LogGroup", log_group, account.has_log_group)
        makes = {
            f"Make{what}": "yes"
            if (before.get(what), before.get(f"Make{what}")) == (name, "yes") or not there(name)
            else "no"
            for what, name, there in has
        }
        buckets = ",".join(account.bucket_arn(each) for each in data)
        return {"Bucket": self.bucket, "Role": self.role, "LogGroup": log_group, "DataBuckets": buckets, **makes}

    def completed(self) -> dict[str, Any]:
        """The profile with all that jobs need."""
        names = {"backend": "aws_lambda", "storage": "aws_s3", "storage_bucket": self.bucket}
        aws = {**(self.written.get("aws") or {}), "region": self.account.region}
        functions = {**(self.written.get("aws_lambda") or {}), "role": self.account.role_arn(self.role)}
        return {**self.written, **names, "aws": aws, "aws_lambda": functions}

    def bared(self) -> dict[str, Any] | None:
        """The profile without what is gone; ``None`` if setup wrote all of it."""
        left = {key: value for key, value in self.written.items() if key != "storage_bucket"}
        functions = {key: value for key, value in (left.pop("aws_lambda", None) or {}).items() if key != "role"}
        if functions:
            left["aws_lambda"] = functions
        alone = {"backend": "aws_lambda", "storage": "aws_s3", "aws": {"region": self.account.region}}
        return None if not left or left == alone else left


def _deploy(place: _Place, dry_run: bool) -> None:
    functions = place.functions()
    recipe = functions.recipe(())
    if dry_run:
        if planned := functions.planned(recipe):
            say("lambda:CreateFunction", planned)
            say("lambda:PutFunctionEventInvokeConfig", {"MaximumRetryAttempts": 0})
        return
    built = functions.build(recipe, lambda line: click.echo(line, err=True))
    click.echo(f"function {built.name} {'made' if built.new else 'is there'}")


def _tell(place: _Place, line: str, *, stacked: bool) -> None:
    account = place.account
    tell(
        {
            "account": f"{account.number}, as {account.caller}",
            "region": account.region,
            "bucket of jobs": place.bucket,
            "role": place.role,
            "log group": place.options.log_group,
            **({"stack": place.stack.name} if stacked else {}),
        }
    )
    click.echo(line)


COMMANDS = [aws]
