"""CloudFormation, DynamoDB and EventBridge of the local AWS, asked by AWS's own SDK."""

from __future__ import annotations

import json

import pytest
from aws_emulator import TRUST, Functions, policy, start_aws
from botocore.exceptions import ClientError


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with start_aws(tmp_path_factory.mktemp("services"), "--sandbox", "process") as emulated:
        yield emulated


@pytest.fixture(scope="module")
def functions(aws):
    return Functions(aws)


def refused(call, *arguments, **options):
    """The status, code and message with which AWS refuses."""
    with pytest.raises(ClientError) as caught:
        call(*arguments, **options)
    error = caught.value.response["Error"]
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], error["Code"], error["Message"]


# --- who may ask

XML_CODES = ("SignatureDoesNotMatch", "InvalidClientTokenId", "AccessDenied")
JSON_CODES = ("InvalidSignatureException", "UnrecognizedClientException", "AccessDeniedException")


@pytest.mark.parametrize(
    ("service", "operation", "action", "wrong", "unknown", "denied"),
    [
        ("cloudformation", "describe_stacks", "cloudformation:DescribeStacks", *XML_CODES),
        ("dynamodb", "list_tables", "dynamodb:ListTables", *JSON_CODES),
        ("events", "list_rules", "events:ListRules", *JSON_CODES),
    ],
)
def test_signatures_and_permissions(aws, service, operation, action, wrong, unknown, denied):
    def ask(key, secret):
        return getattr(aws.client(service, aws_access_key_id=key, aws_secret_access_key=secret), operation)

    key, secret = aws.account["access_key_id"], aws.account["secret_access_key"]
    aws.own("requests", "DELETE")
    ask(key, secret)()
    assert aws.own("requests") == {action: 1}
    assert refused(ask(key, secret[:-1] + "!"))[:2] == (403, wrong)
    assert refused(ask("AKIAAAAAAAAAAAAAAAAA", secret))[:2] == (403, unknown)
    others = aws.user(f"not-of-{service}", policy(("s3:*", "*")))
    status, code, text = refused(ask(*others.values()))
    assert (status, code) == (403, denied)
    assert f"is not authorized to perform: {action}" in text


# --- stacks


ROLE = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": TRUST, "RoleName": {"Ref": "Name"}}}
BUCKET = {
    "Type": "AWS::S3::Bucket",
    "DeletionPolicy": "RetainExceptOnCreate",
    "UpdateReplacePolicy": "Retain",
    "Properties": {"BucketName": {"Fn::Sub": "${Name}-bucket"}},
}
GROUP = {
    "Type": "AWS::Logs::LogGroup",
    "Condition": "Logs",
    "Properties": {"LogGroupName": {"Fn::Sub": "/${Name}"}, "RetentionInDays": {"Ref": "Days"}},
}
TEMPLATE = {
    "Parameters": {"Name": {"Type": "String"}, "Days": {"Type": "Number", "Default": 0}},
    "Conditions": {"Logs": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Days"}, 0]}]}},
    "Resources": {"Bucket": BUCKET, "Group": GROUP, "Role": ROLE},
}
NAMED = {"Capabilities": ["CAPABILITY_NAMED_IAM"]}


def given(name, template=TEMPLATE, **parameters):
    told = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    return {"StackName": name, "TemplateBody": json.dumps(template), "Parameters": told, **NAMED}


def status(aws, name):
    return aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]


def events(aws, name):
    """Resource, status and reason of each event, the first first."""
    found = aws.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"][::-1]
    return [(each["LogicalResourceId"], each["ResourceStatus"], each.get("ResourceStatusReason", "")) for each in found]


def groups(aws, name):
    found = aws.client("logs").describe_log_groups(logGroupNamePrefix=f"/{name}")["logGroups"]
    return [each.get("retentionInDays") for each in found]


def buckets(aws, name):
    found = [each["Name"] for each in aws.client("s3").list_buckets()["Buckets"]]
    return [each for each in found if each.startswith(name)]


def test_identities_take_a_capability(aws):
    stacks = aws.client("cloudformation")
    wanted = given("capable", Name="capable")
    for too_few in ([], ["CAPABILITY_IAM"]):
        answer = refused(stacks.create_stack, **wanted | {"Capabilities": too_few})
        assert answer == (400, "InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_NAMED_IAM]")
    assert refused(stacks.describe_stacks, StackName="capable")[1] == "ValidationError"


def test_a_stack_changes_with_its_parameters_and_template(aws):
    stacks = aws.client("cloudformation")
    stacks.create_stack(**given("changing", Name="changing"))
    assert (groups(aws, "changing"), buckets(aws, "changing")) == ([], ["changing-bucket"])
    assert refused(stacks.update_stack, **given("changing", Name="changing"))[2] == "No updates are to be performed."
    stacks.update_stack(**given("changing", Name="changing", Days="7"))
    assert groups(aws, "changing") == [7]
    stacks.update_stack(**given("changing", Name="changing", Days="14"))
    assert groups(aws, "changing") == [14]
    other = {
        **TEMPLATE,
        "Resources": {"Bucket": BUCKET | {"Properties": {"BucketName": "changing-other"}}, "Role": ROLE},
    }
    stacks.update_stack(**given("changing", other, Name="changing"))
    assert groups(aws, "changing") == []
    assert buckets(aws, "changing") == ["changing-bucket", "changing-other"]
    assert status(aws, "changing") == "UPDATE_COMPLETE"
    number = stacks.describe_stacks(StackName="changing")["Stacks"][0]["StackId"]
    stacks.delete_stack(StackName="changing")
    assert ("Bucket", "DELETE_SKIPPED", "") in events(aws, number)
    assert refused(aws.client("iam").get_role, RoleName="changing")[0] == 404


def test_a_stack_that_cannot_be_made_is_rolled_back(aws):
    aws.client("iam").create_role(RoleName="taken", AssumeRolePolicyDocument=json.dumps(TRUST))
    stacks = aws.client("cloudformation")
    stacks.create_stack(**given("taken", Name="taken", Days="7"))
    assert status(aws, "taken") == "ROLLBACK_COMPLETE"
    assert (groups(aws, "taken"), buckets(aws, "taken")) == ([], [])
    text = 'Resource handler returned message: "Role with name taken already exists."'
    why = "The following resource(s) failed to create: [Role]. Rollback requested by user."
    assert events(aws, "taken") == [
        ("taken", "CREATE_IN_PROGRESS", "User Initiated"),
        ("Bucket", "CREATE_IN_PROGRESS", ""),
        ("Bucket", "CREATE_COMPLETE", ""),
        ("Group", "CREATE_IN_PROGRESS", ""),
        ("Group", "CREATE_COMPLETE", ""),
        ("Role", "CREATE_IN_PROGRESS", ""),
        ("Role", "CREATE_FAILED", text),
        ("taken", "ROLLBACK_IN_PROGRESS", why),
        ("Group", "DELETE_IN_PROGRESS", ""),
        ("Group", "DELETE_COMPLETE", ""),
        ("Bucket", "DELETE_IN_PROGRESS", ""),
        ("Bucket", "DELETE_COMPLETE", ""),
        ("taken", "ROLLBACK_COMPLETE", ""),
    ]
    assert (
        "ROLLBACK_COMPLETE state and can not be updated" in refused(stacks.update_stack, **given("taken", Name="x"))[2]
    )
    stacks.delete_stack(StackName="taken")
    assert aws.client("iam").get_role(RoleName="taken")


def test_a_change_that_fails_is_rolled_back(aws):
    aws.client("logs").create_log_group(logGroupName="/changed")
    stacks = aws.client("cloudformation")
    stacks.create_stack(**given("changed", Name="changed"))
    more = {"More": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/changed-more"}}}
    template = {**TEMPLATE, "Resources": {**more, **TEMPLATE["Resources"]}}
    stacks.update_stack(**given("changed", template, Name="changed", Days="7"))
    assert status(aws, "changed") == "UPDATE_ROLLBACK_COMPLETE"
    assert groups(aws, "changed") == [None]
    assert [each[:2] for each in events(aws, "changed")][-4:] == [
        ("changed", "UPDATE_ROLLBACK_IN_PROGRESS"),
        ("More", "DELETE_IN_PROGRESS"),
        ("More", "DELETE_COMPLETE"),
        ("changed", "UPDATE_ROLLBACK_COMPLETE"),
    ]
    parameters = stacks.describe_stacks(StackName="changed")["Stacks"][0]["Parameters"]
    assert {each["ParameterKey"]: each["ParameterValue"] for each in parameters} == {"Name": "changed", "Days": "0"}


def test_a_stack_makes_what_its_maker_may(aws):
    actions = [
        "cloudformation:*",
        "s3:CreateBucket",
        "s3:DeleteBucket",
        "logs:CreateLogGroup",
        "logs:PutRetentionPolicy",
    ]
    stacks = aws.client("cloudformation", **aws.user("maker", policy((actions, "*"))))
    stacks.create_stack(**given("made", Name="made", Days="7"))
    assert status(aws, "made") == "ROLLBACK_FAILED"  # it may not delete the group
    told = dict(each[::2] for each in events(aws, "made") if each[1].endswith("FAILED"))
    assert "user/maker is not authorized to perform: iam:CreateRole" in told["Role"]
    assert "user/maker is not authorized to perform: logs:DeleteLogGroup" in told["Group"]
    assert (groups(aws, "made"), buckets(aws, "made")) == ([7], [])
    stacks.delete_stack(StackName="made")
    assert status(aws, "made") == "DELETE_FAILED"
    aws.client("cloudformation").delete_stack(StackName="made")
    assert groups(aws, "made") == []
    assert refused(stacks.describe_stacks, StackName="made")[1] == "ValidationError"


def test_what_there_is_not_is_no_part_of_a_stack(aws):
    template = {"Resources": {"It": {"Type": "AWS::Athena::DataCatalog", "Properties": {"Name": "a", "Type": "HIVE"}}}}
    stacks = aws.client("cloudformation")
    stacks.create_stack(**given("strange", template))
    assert [each[2] for each in events(aws, "strange") if each[1] == "CREATE_FAILED"] == [
        'Resource handler returned message: "the local AWS has no AWS::Athena::DataCatalog"'
    ]


# --- rules and tables


def test_events_of_rules_come_to_functions(functions):
    aws = functions.aws
    name = functions.make("def handler(event, context):\n    print(event)\n")
    arn = functions.client.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    rules = aws.client("events")
    pattern = {"source": ["mine"], "detail": {"number": [{"numeric": [">", 1]}]}}
    for rule, target, more in (
        ("whole", {}, {"EventPattern": json.dumps(pattern)}),
        ("part", {"InputPath": "$.detail.number"}, {"EventPattern": json.dumps(pattern)}),
        ("constant", {"Input": '"constant"'}, {"EventPattern": json.dumps(pattern)}),
        ("disabled", {}, {"EventPattern": json.dumps(pattern), "State": "DISABLED"}),
        ("schedule", {}, {"ScheduleExpression": "rate(1 day)"}),
    ):
        rules.put_rule(Name=rule, **more)
        rules.put_targets(Rule=rule, Targets=[{"Id": "1", "Arn": arn, **target}])
        assert rules.list_targets_by_rule(Rule=rule)["Targets"] == [{"Id": "1", "Arn": arn, **target}]
    entries = [{"Source": "mine", "DetailType": "told", "Detail": json.dumps({"number": each})} for each in (1, 2)]
    assert rules.put_events(Entries=entries)["FailedEntryCount"] == 0
    aws.settle()
    told = [line.strip() for line in functions.messages(name) if not line.startswith(("START", "END", "REPORT"))]
    (whole,) = (line for line in told if line.startswith("{"))
    assert "'detail-type': 'told', 'source': 'mine'" in whole
    assert "'detail': {'number': 2}" in whole
    assert sorted(told, key=len) == ["2", "constant", whole]
