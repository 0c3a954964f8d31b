"""`python -m tests.deploy.manifests` remakes deploy/kubernetes/agentos.yaml (`make manifests`)."""

from tests.deploy.chart import MANIFESTS, plain_manifests

if __name__ == "__main__":
    MANIFESTS.write_text(plain_manifests(), "utf-8")
