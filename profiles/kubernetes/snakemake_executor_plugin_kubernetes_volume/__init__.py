"""Snakemake's Kubernetes plugin, changed for jobs that share the grid's folder on a volume.

The plugin (0.5.1) makes jobs download inputs and upload outputs through a storage provider. Checkpoints of tens of GB
and resumable runs need the shared volume instead. Snakemake finds this module through PYTHONPATH. Each job also gets
- limits equal to its requested memory and GPUs, because Kubernetes assigns GPUs only by limits; CPUs are not limited;
- shared memory up to its memory limit, which NCCL needs between the GPUs of a node; the default is 64 MB;
- a readable log after a failure: the plugin requests the log of a previous container run, which Kubernetes refuses for
  a first run, and Snakemake would exit instead of resubmitting the job.
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
        requests = container.resources.requests
        container.resources.limits = {
            name: requests[name] for name in requests if name == "memory" or name.endswith("/gpu")
        }
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
