"""Which changes replace a resource, and which resources hold what a replacement destroys.

Three sources, in this order: the resource's own ``replace_on_changes``; the provider's documentation as the SDK carries
it ("Changing this forces a new resource"); and a short table for what that leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pulumi import _types

from infra.preview.model import Resource
from infra.preview.outputs import element, output_fields, resource_class

_FORCES: Final = re.compile(
    r"forces?\s+(?:the\s+|a\s+)?(?:new|replacement|recreation|re-creation|creation)"
    r"|(?:trigger|cause|force|require)s?\s+(?:a\s+|the\s+)?(?:replacement|recreation|resource\s+to\s+be\s+(?:replaced|recreated))"
    r"|cannot\s+be\s+(?:changed|modified|updated)\s+after",
    re.IGNORECASE,
)

STATEFUL: Final[Mapping[str, str]] = {
    "aws:backup/vault:Vault": "recovery points",
    "aws:cloudwatch/logGroup:LogGroup": "logs",
    "aws:cognito/userPool:UserPool": "user accounts",
    "aws:docdb/cluster:Cluster": "a database",
    "aws:dynamodb/table:Table": "a table",
    "aws:ebs/volume:Volume": "a volume",
    "aws:ecr/repository:Repository": "images",
    "aws:efs/fileSystem:FileSystem": "a file system",
    "aws:eks/cluster:Cluster": "a cluster and everything in it",
    "aws:elasticache/cluster:Cluster": "cached data",
    "aws:elasticache/replicationGroup:ReplicationGroup": "cached data",
    "aws:elasticache/serverlessCache:ServerlessCache": "cached data",
    "aws:fsx/lustreFileSystem:LustreFileSystem": "a file system",
    "aws:kms/key:Key": "a key: whatever it encrypted becomes unreadable",
    "aws:msk/cluster:Cluster": "streams",
    "aws:rds/cluster:Cluster": "a database",
    "aws:rds/instance:Instance": "a database",
    "aws:route53/zone:Zone": "DNS records and the delegation to them",
    "aws:s3/bucket:Bucket": "objects",
    "aws:s3/bucketV2:BucketV2": "objects",
    "aws:secretsmanager/secret:Secret": "a secret",
    "aws:sqs/queue:Queue": "messages",
    "aws:timestreamwrite/database:Database": "a database",
    "kubernetes:apps/v1:StatefulSet": "pods with volumes of their own",
    "kubernetes:core/v1:Namespace": "everything in the namespace",
    "kubernetes:core/v1:PersistentVolume": "a volume",
    "kubernetes:core/v1:PersistentVolumeClaim": "a volume",
    "random:index/randomPassword:RandomPassword": "a generated secret",
}
"""What is lost when a resource of the type is replaced or removed."""

_REPLACES: Final[Mapping[str, frozenset[str]]] = {
    "aws:backup/vault:Vault": frozenset({"name", "kmsKeyArn"}),
    "aws:cloudwatch/logGroup:LogGroup": frozenset({"name", "namePrefix", "logGroupClass", "region"}),
    "aws:ebs/volume:Volume": frozenset({"availabilityZone", "encrypted", "kmsKeyId", "snapshotId"}),
    "aws:ec2/launchTemplate:LaunchTemplate": frozenset({"name", "namePrefix"}),
    "aws:ec2/securityGroup:SecurityGroup": frozenset({"name", "namePrefix", "description", "vpcId"}),
    "aws:ec2/subnet:Subnet": frozenset({"vpcId", "cidrBlock", "availabilityZone", "availabilityZoneId", "ipv6Native"}),
    "aws:ec2/vpc:Vpc": frozenset({"cidrBlock", "ipv4IpamPoolId", "ipv4NetmaskLength"}),
    "aws:ecr/repository:Repository": frozenset({"name", "encryptionConfigurations"}),
    "aws:efs/fileSystem:FileSystem": frozenset(
        {"encrypted", "kmsKeyId", "performanceMode", "availabilityZoneName", "creationToken"}
    ),
    "aws:eks/addon:Addon": frozenset({"addonName", "clusterName"}),
    "aws:eks/cluster:Cluster": frozenset(
        {"name", "roleArn", "encryptionConfig", "bootstrapSelfManagedAddons", "kubernetesNetworkConfig"}
    ),
    "aws:eks/nodeGroup:NodeGroup": frozenset(
        {
            "amiType",
            "capacityType",
            "clusterName",
            "diskSize",
            "instanceTypes",
            "nodeGroupName",
            "nodeRoleArn",
            "subnetIds",
        }
    ),
    "aws:elasticache/replicationGroup:ReplicationGroup": frozenset(
        {
            "replicationGroupId",
            "atRestEncryptionEnabled",
            "kmsKeyId",
            "subnetGroupName",
            "port",
            "dataTieringEnabled",
            "snapshotName",
        }
    ),
    "aws:iam/role:Role": frozenset({"name", "namePrefix", "path"}),
    "aws:kms/key:Key": frozenset({"customerMasterKeySpec", "keyUsage", "multiRegion", "customKeyStoreId"}),
    "aws:lb/loadBalancer:LoadBalancer": frozenset({"name", "namePrefix", "internal", "loadBalancerType"}),
    "aws:lb/targetGroup:TargetGroup": frozenset({"name", "namePrefix", "port", "protocol", "targetType", "vpcId"}),
    "aws:rds/instance:Instance": frozenset(
        {
            "identifier",
            "identifierPrefix",
            "dbName",
            "username",
            "storageEncrypted",
            "kmsKeyId",
            "characterSetName",
            "timezone",
            "availabilityZone",
            "customIamInstanceProfile",
            "snapshotIdentifier",
        }
    ),
    "aws:route53/zone:Zone": frozenset({"name", "delegationSetId"}),
    "aws:s3/bucket:Bucket": frozenset({"bucket", "bucketPrefix", "objectLockEnabled", "region"}),
    "aws:secretsmanager/secret:Secret": frozenset({"name", "namePrefix"}),
    "aws:sns/topic:Topic": frozenset({"name", "namePrefix", "fifoTopic"}),
    "random:index/randomId:RandomId": frozenset({"byteLength", "keepers", "prefix"}),
    "random:index/randomPassword:RandomPassword": frozenset({"length", "special", "overrideSpecial", "keepers"}),
    # A change of these makes a new object; a Deployment's selector is immutable (Kubernetes API conventions).
    "kubernetes:apps/v1:Deployment": frozenset({"spec.selector"}),
    "kubernetes:apps/v1:DaemonSet": frozenset({"spec.selector"}),
    "kubernetes:apps/v1:StatefulSet": frozenset(
        {"spec.selector", "spec.serviceName", "spec.podManagementPolicy", "spec.volumeClaimTemplates"}
    ),
    "kubernetes:batch/v1:Job": frozenset({"spec.selector", "spec.template", "spec.completions"}),
    "kubernetes:core/v1:ConfigMap": frozenset({"data", "binaryData"}),
    "kubernetes:core/v1:Secret": frozenset({"data", "stringData", "type"}),
    "kubernetes:core/v1:PersistentVolumeClaim": frozenset(
        {"spec.accessModes", "spec.storageClassName", "spec.volumeName", "spec.volumeMode", "spec.selector"}
    ),
    "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": frozenset({"roleRef"}),
    "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding": frozenset({"roleRef"}),
    "kubernetes:storage.k8s.io/v1:StorageClass": frozenset(
        {"parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"}
    ),
}
_MAY_GROW: Final = frozenset({("aws:lb/loadBalancer:LoadBalancer", "subnets")})
"""Lists that replace their resource when something leaves them, not when something joins (an NLB's subnets)."""
_KUBERNETES_IDENTITY: Final = frozenset({"metadata.name", "metadata.namespace", "apiVersion", "kind"})


def is_stateful(resource: Resource) -> bool:
    """Whether replacing or removing ``resource`` loses what it holds."""
    return resource.type in STATEFUL and not resource.read


def forces_replacement(resource: Resource, path: str) -> bool:
    """Whether a change of the input at ``path`` (as in ``rootBlockDevice.encrypted``) makes a new resource."""
    plain = re.sub(r"\[\d+\]", "", path)
    steps = [plain]
    while "." in steps[-1]:
        steps.append(steps[-1].rpartition(".")[0])
    wanted = {re.sub(r"\[[^]]*\]", "", option) for option in resource.replace_on_changes}
    if "*" in wanted or wanted.intersection(steps):
        return True
    listed = _REPLACES.get(resource.type, frozenset())
    if resource.package == "kubernetes" and not resource.type.startswith("kubernetes:helm"):
        listed = listed | _KUBERNETES_IDENTITY
    return bool(listed.intersection(steps)) or _documented(resource.type, plain)


def only_grows(resource: Resource, path: str, before: object, after: object) -> bool:
    """Whether the list at ``path`` keeps all that it had, and its resource lives on with what joined."""
    if not isinstance(before, list) or not isinstance(after, list):
        return False
    return (resource.type, path) in _MAY_GROW and all(item in after for item in before)


def _documented(token: str, path: str) -> bool:
    """Whether the SDK documents the property at ``path``, or one it is inside of, as replacing."""
    current: Any = resource_class(token)
    for step in path.split("."):
        if current is None:
            return False
        name = next((python for python, pulumi, _ in _types._py_properties(current) if pulumi == step), None)  # noqa: SLF001
        if name is None:
            return False
        documentation = getattr(getattr(current, name), "__doc__", "") or ""
        if _FORCES.search(documentation):
            return True
        known = output_fields(current) if _types.is_output_type(current) else _types.resource_types(current)
        shape, inner = element(known.get(step))
        if shape == "list":
            shape, inner = element(inner)
        current = inner if shape == "object" else None
    return False
