"""Snakemake's plugin for Kubernetes, for jobs that share the folder of the grid on a volume.

The plugin itself (0.5.1) has jobs fetch and bring each file through a storage provider; checkpoints of tens of GB, and
runs that go on from half-finished ones, want the volume that it can mount. Snakemake finds this module where PYTHONPATH
has its folder. Besides, a job has here
- memory and GPUs as limits too, without which Kubernetes gives out no GPU, and as many CPUs as its node has free;
- as much shared memory as it may hold, which NCCL needs between the GPUs of a node, where a container has 64 MB;
- a log that can be read when it failed: the plugin asks for that of a container's run before its first, which
  Kubernetes refuses, and Snakemake would end instead of sending the job again.
"""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import snakemake_executor_plugin_kubernetes as plugin
from kubernetes.client import BatchV1Api, CoreV1Api, V1EmptyDirVolumeSource, V1Job, V1Volume, V1VolumeMount
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

ExecutorSettings = plugin.ExecutorSettings
common_settings = replace(
    plugin.common_settings,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    auto_deploy_default_storage_provider=False,
)


class Jobs(BatchV1Api):
    def create_namespaced_job(self, namespace: str, body: V1Job, **options: Any) -> V1Job:
        pod = body.spec.template.spec
        [container] = pod.containers
        asked = container.resources.requests
        container.resources.limits = {name: asked[name] for name in asked if name == "memory" or name.endswith("/gpu")}
        pod.volumes.append(V1Volume(name="shared-memory", empty_dir=V1EmptyDirVolumeSource(medium="Memory")))
        container.volume_mounts.append(V1VolumeMount(name="shared-memory", mount_path="/dev/shm"))
        return super().create_namespaced_job(namespace, body, **options)


class Pods(CoreV1Api):
    def read_namespaced_pod_log(self, name: str, namespace: str, **options: Any) -> str:
        return super().read_namespaced_pod_log(name, namespace, **{**options, "previous": False})


class Executor(plugin.Executor):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.kubeapi, self.batchapi = Pods(), Jobs()

    def get_job_exec_prefix(self, job: JobExecutorInterface) -> str:
        return f"cd {shlex.quote(str(Path.cwd()))}"
