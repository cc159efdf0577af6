"""Programs of PyPI, in virtual environments outside the checkout."""
import hashlib, os, pathlib, subprocess, sys


def venv(requirements, python=sys.executable):
    """The folder of the programs that the file `requirements` names; they are installed where they are not there."""
    cache = pathlib.Path(os.environ.get("TINYFAAS_CACHE", pathlib.Path.home() / ".cache/tinyfaas"))
    key = hashlib.sha256(f"{python}\n{requirements.read_text()}".encode()).hexdigest()[:16]
    folder = cache / f"venv-{key}"
    if not (folder / "complete").exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
        install = [folder / "bin/pip", "install", "-q", "--disable-pip-version-check", "-r", requirements]
        subprocess.run(install, check=True)
        (folder / "complete").touch()
    return folder / "bin"
