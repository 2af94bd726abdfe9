"""Module order is what torch says it is: every order is held against the ``state_dict()`` of a real model."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from blockmerge.architectures import (
    Block,
    Order,
    block_of,
    known_architectures,
    layer_of,
    module_order,
    num_layers,
    table_version,
    tables,
    vocabulary_tensors,
)

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 12}


def llama_names(layers: int = 12, prefix: str = "model.", *, head: bool = True) -> list[str]:
    modules = [f"self_attn.{part}_proj" for part in "qkvo"]
    modules += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    modules += ["input_layernorm", "post_attention_layernorm"]
    inside = [f"{prefix}layers.{layer}.{module}.weight" for layer in range(layers) for module in modules]
    return [f"{prefix}embed_tokens.weight", *inside, f"{prefix}norm.weight", *(["lm_head.weight"] if head else [])]


def shuffled(names: Iterable[str], seed: int = 0) -> list[str]:
    mixed = list(names)
    random.Random(seed).shuffle(mixed)
    return mixed


# --- Against the real models ----------------------------------------------------------------------------------------

# All of 12 layers, more than the table was made with and enough for 10 to sort before 2 by the alphabet.
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("BambaForCausalLM", {"attn_layer_indices": [3, 11]}),
    ("BloomForCausalLM", {}),
    ("Cohere2ForCausalLM", {}),
    ("CohereForCausalLM", {"use_qk_norm": True}),
    ("DbrxForCausalLM", {}),
    ("DeepseekV2ForCausalLM", {"q_lora_rank": None, "first_k_dense_replace": 1}),
    ("DeepseekV3ForCausalLM", {"first_k_dense_replace": 3}),
    ("FalconForCausalLM", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 2}),
    ("FalconForCausalLM", {"parallel_attn": False, "bias": True, "alibi": True, "multi_query": False}),
    ("FalconH1ForCausalLM", {}),
    ("GPT2LMHeadModel", {}),
    ("GPT2LMHeadModel", {"add_cross_attention": True}),
    ("GPTJForCausalLM", {}),
    ("GPTNeoForCausalLM", {"attention_types": [[["global", "local"], 6]]}),
    ("GPTNeoXForCausalLM", {}),
    ("Gemma2ForCausalLM", {}),
    ("Gemma3ForCausalLM", {}),
    ("Gemma3nForCausalLM", {"num_kv_shared_layers": 4}),
    ("GemmaForCausalLM", {"attention_bias": True}),
    ("Glm4MoeForCausalLM", {"use_qk_norm": True}),
    ("GptOssForCausalLM", {}),
    ("GraniteForCausalLM", {"mlp_bias": True}),
    ("GraniteMoeHybridForCausalLM", {"layer_types": ["mamba", "mamba", "attention"] * 4, "attention_bias": True}),
    ("JambaForCausalLM", {}),
    ("Lfm2ForCausalLM", {"layer_types": ["conv", "conv", "full_attention"] * 4}),
    ("LlamaForCausalLM", {}),
    ("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("MambaForCausalLM", {}),
    ("MistralForCausalLM", {}),
    ("MixtralForCausalLM", {}),
    ("MllamaForCausalLM", {"cross_attention_layers": [2, 5, 10]}),
    ("MptForCausalLM", {}),
    ("NemotronHForCausalLM", {"layers_block_type": ["mamba", "moe", "attention", "mlp"] * 3}),
    ("OPTForCausalLM", {"word_embed_proj_dim": 256, "do_layer_norm_before": False}),
    ("Olmo2ForCausalLM", {}),
    ("OlmoeForCausalLM", {}),
    ("Phi3ForCausalLM", {}),
    ("PhiForCausalLM", {"qk_layernorm": True}),
    ("Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    ("Qwen2MoeForCausalLM", {"mlp_only_layers": [0, 7]}),
    ("Qwen3ForCausalLM", {}),
    ("Qwen3MoeForCausalLM", {}),
    ("Qwen3NextForCausalLM", {}),
    ("RecurrentGemmaForCausalLM", {}),
    ("SmolLM3ForCausalLM", {}),
    ("StableLmForCausalLM", {"qk_layernorm": True, "use_qkv_bias": True}),
    ("Starcoder2ForCausalLM", {}),
    ("T5ForConditionalGeneration", {}),
]


def build(name: str, settings: dict[str, Any]) -> Any:
    """A real model without storage, of 12 layers unless the settings say how many."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    cls = getattr(transformers, name)
    config = cls.config_class(**{"num_hidden_layers": 12, **settings})
    if name == "DbrxForCausalLM":
        config.attn_config.rope_theta = 1e4
    with torch.device("meta"):
        return cls(config)


def config_of(model: Any) -> dict[str, Any]:
    return {**json.loads(model.config.to_json_string()), "architectures": [type(model).__name__]}


@pytest.mark.parametrize(("name", "settings"), MODELS, ids=lambda value: value if isinstance(value, str) else "")
def test_order_is_that_of_the_state_dict(name: str, settings: dict[str, Any]) -> None:
    model = build(name, settings)
    names = list(model.state_dict())
    tied = model.all_tied_weights_keys
    config = config_of(model)
    every = module_order(config, shuffled(names))
    assert (every.names, every.source, every.ignored) == (tuple(names), "table", ())
    # As a file has it: without the tied tensors, which come back where the module has them.
    stored = module_order(config, shuffled(name for name in names if name not in tied))
    assert (stored.names, stored.source) == (tuple(names), "table")
    assert stored.tied == every.tied == tied
    # The five blocks know every layer and every tensor with a row per token.
    assert {layer_of(name) for name in names} == {None, *range(12)}
    state = model.state_dict()
    tokens = model.config.vocab_size
    rows = {tokens, getattr(model.config, "vocab_size_per_layer_input", tokens)}  # gemma3n has two vocabularies
    rows |= {tokens + 8} if name.startswith("Mllama") else set()  # and mllama special tokens
    assert set(vocabulary_tensors(names)) == {name for name in names if state[name].shape[0] in rows}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Gemma3ForConditionalGeneration", None),
        ("LlavaForConditionalGeneration", "llama"),
        ("LlavaForConditionalGeneration", "qwen3"),  # not the language model that the table was made with
    ],
)
def test_composites(name: str, text: str | None) -> None:
    settings = {} if text is None else {"text_config": {"model_type": text, "num_hidden_layers": 12}}
    model = build(name, settings)
    names = list(model.state_dict())
    order = module_order(config_of(model), shuffled(names))
    assert (order.names, order.source) == (tuple(names), "table")
    tower = [name for name in names if "vision_tower" in name]
    assert tower
    assert {block_of(name) for name in tower} == {Block.OTHER}
    assert {layer_of(name) for name in tower} == {None}


def test_table_covers_the_causal_language_models() -> None:
    auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    causal: set[str] = set()
    for names in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        causal |= {names} if isinstance(names, str) else set(names)
    assert len(causal & set(known_architectures())) >= 170
    assert list(known_architectures()) == sorted(known_architectures())


def load_tool() -> ModuleType:
    path = Path(__file__).parents[1] / "tools" / "make_order_tables.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.soak
def test_every_class_at_its_default_settings() -> None:
    transformers = pytest.importorskip("transformers")
    tool = load_tool()
    wrong: list[str] = []
    for name in known_architectures():
        cls = getattr(transformers, name, None)
        model = None if cls is None else tool.try_build(cls, {})
        if model is not None:
            names = list(model.state_dict())
            order = module_order(config_of(model), shuffled(names))
            wrong += [] if order.names == tuple(names) else [name]
    assert not wrong


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "MixtralForCausalLM", "MllamaForCausalLM"])
def test_table_is_what_the_tool_makes(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    if transformers.__version__ != table_version():
        pytest.skip(f"the table is of transformers {table_version()}")
    made = load_tool().describe(getattr(transformers, name))
    kept = json.loads(Path(tables.__file__).with_name("orders.json").read_text())["architectures"][name]
    assert tables.read_tree(made.pop("order")) == tables.read_tree(kept.pop("order"))
    assert made == kept


# --- Names as checkpoints have them ---------------------------------------------------------------------------------


def test_tied_head_is_counted_where_the_module_has_it() -> None:
    order = module_order({**LLAMA, "tie_word_embeddings": True}, shuffled(llama_names(head=False)))
    assert order.names == tuple(llama_names())
    assert order.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert order.notes == ()


def test_both_tied_tensors_stored() -> None:
    order = module_order({**LLAMA, "tie_word_embeddings": True}, shuffled(llama_names()))
    assert order.names == tuple(llama_names())
    assert order.tied == {"lm_head.weight": "model.embed_tokens.weight"}


def test_only_the_head_of_a_tied_pair_stored() -> None:
    names = [name for name in llama_names() if "embed" not in name]
    order = module_order({**LLAMA, "tie_word_embeddings": True}, names)
    assert order.names == tuple(llama_names())
    assert order.tied == {"model.embed_tokens.weight": "lm_head.weight"}


def test_tie_is_the_default_of_the_architecture_unless_stated() -> None:
    names = llama_names(head=False)
    untied = module_order(LLAMA, names)
    assert untied.tied == {}
    assert untied.names == tuple(names)
    gemma = {"architectures": ["GemmaForCausalLM"]}
    assert module_order(gemma, names).tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert module_order({**gemma, "tie_word_embeddings": False}, names).tied == {}
    assert module_order({**gemma, "tie_word_embeddings": "no"}, names).tied != {}


def test_without_the_prefix_of_the_bare_model() -> None:
    names = llama_names(prefix="", head=False)
    assert module_order(LLAMA, shuffled(names)).names == tuple(names)
    tied = module_order({**LLAMA, "tie_word_embeddings": True}, shuffled(names))
    assert tied.names == (*names, "lm_head.weight")
    assert tied.tied == {"lm_head.weight": "embed_tokens.weight"}
    bare = module_order({**LLAMA, "architectures": ["LlamaModel"], "tie_word_embeddings": True}, shuffled(names))
    assert (bare.names, bare.tied, bare.source) == (tuple(names), {}, "table")
    judge = {"architectures": ["GemmaForSequenceClassification"], "model_type": "gemma"}
    assert module_order(judge, shuffled(names)).names == tuple(names)


def test_names_of_older_releases() -> None:
    names = [f"language_model.{name}" for name in llama_names()]
    tower = ["vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight", "multi_modal_projector.linear_1.weight"]
    config = {"architectures": ["LlavaForConditionalGeneration"], "text_config": {"model_type": "llama"}}
    assert module_order(config, shuffled([*names, *tower])).names == (*tower, *names)
    neox = ["gpt_neox.embed_in.weight", "gpt_neox.layers.0.attention.dense.weight", "embed_out.weight"]
    assert module_order({"architectures": ["GPTNeoXForCausalLM"]}, shuffled(neox)).names == tuple(neox)


def test_single_experts_stand_where_the_fused_ones_do() -> None:
    names = [name for name in llama_names(3) if "mlp" not in name]
    experts = [
        [
            f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w{w}.weight"
            for expert in range(12)
            for w in (1, 2, 3)
        ]
        for layer in range(3)
    ]
    gates = [f"model.layers.{layer}.block_sparse_moe.gate.weight" for layer in range(3)]
    order = module_order(
        {"architectures": ["MixtralForCausalLM"]},
        shuffled([*names, *gates, *(name for one in experts for name in one)]),
    )
    assert order.source == "table"
    first = order.names.index("model.layers.2.self_attn.o_proj.weight") + 1
    assert list(order.names[first : first + 37]) == [gates[2], *experts[2]]
    assert order.notes == (
        "'model.layers.0.block_sparse_moe.experts.0.w1.weight' and 107 more are stored apart, fused on loading: "
        "each takes a position of its own",
    )


def test_what_loading_drops_takes_no_position() -> None:
    frequencies = [f"model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in range(12)]
    order = module_order(LLAMA, shuffled([*llama_names(), *frequencies]))
    assert order.names == tuple(llama_names())
    assert order.ignored == tuple(frequencies)
    assert order.notes == (f"{frequencies[0]!r} and 11 more are dropped on loading: no position",)
    masks = [f"h.{layer}.attn.bias" for layer in range(12)]
    assert module_order({"architectures": ["GPT2LMHeadModel"]}, ["wte.weight", *masks]).ignored == tuple(masks)


def test_layers_that_the_model_does_not_have_are_dropped() -> None:
    extra = ["model.layers.12.eh_proj.weight", "model.layers.12.input_layernorm.weight"]
    order = module_order({**LLAMA, "architectures": ["DeepseekV3ForCausalLM"]}, [*llama_names(), *extra])
    assert order.ignored == tuple(extra)
    stated_nowhere = {"architectures": ["DeepseekV3ForCausalLM"]}
    assert module_order(stated_nowhere, [*llama_names(), extra[1]]).ignored == ()


def test_shared_keys_and_values_are_dropped_from_the_last_layers() -> None:
    config = {"architectures": ["Gemma3nForCausalLM"], "num_hidden_layers": 12, "num_kv_shared_layers": 2}
    order = module_order(config, llama_names(head=False))
    assert set(order.ignored) == {f"model.layers.{at}.self_attn.{part}_proj.weight" for at in (10, 11) for part in "kv"}
    assert module_order({**config, "num_kv_shared_layers": 12}, llama_names(head=False)).ignored == ()


def test_result_does_not_depend_on_the_order_of_names() -> None:
    names = [*llama_names(), "model.layers.3.self_attn.rotary_emb.inv_freq"]
    for config in (LLAMA, {"architectures": ["Unheard"]}, {**LLAMA, "architectures": ["MixtralForCausalLM"]}):
        orders = [module_order(config, shuffled(names, seed)) for seed in range(3)]
        assert orders[0] == orders[1] == orders[2]
        assert set(orders[0].names) | set(orders[0].ignored) >= set(names)


# --- Natural order --------------------------------------------------------------------------------------------------


def test_unknown_class_is_in_natural_order_aloud() -> None:
    order = module_order({"architectures": ["UnheardForCausalLM"]}, shuffled([*llama_names(), "model.gadget.weight"]))
    assert order.source == "natural"
    assert order.names[:2] == ("model.embed_tokens.weight", "model.gadget.weight")
    assert order.names[-2:] == ("model.norm.weight", "lm_head.weight")
    layers = [layer_of(name) for name in order.names[2:-2]]
    assert layers == sorted(layers, key=lambda layer: -1 if layer is None else layer)
    assert len(order.notes) == 1
    assert "'UnheardForCausalLM' is not in the table" in order.notes[0]


def test_unknown_class_of_a_known_type() -> None:
    order = module_order({**LLAMA, "architectures": ["UnheardForCausalLM"]}, shuffled(llama_names()))
    assert (order.names, order.source) == (tuple(llama_names()), "table")


def test_unknown_class_ties_when_told() -> None:
    order = module_order({"tie_word_embeddings": True}, llama_names(head=False))
    assert order.names[-1] == "lm_head.weight"
    assert order.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert len(order.notes) == 2


def test_one_unknown_name_makes_the_order_natural_aloud() -> None:
    order = module_order(LLAMA, shuffled([*llama_names(), "model.layers.2.gadget.weight"]))
    assert order.source == "natural"
    assert order.notes == (
        "'model.layers.2.gadget.weight' is not in the modules of LlamaForCausalLM: the order is natural",
    )
    assert order.names[-1] == "lm_head.weight"


def test_natural_order_counts() -> None:
    names = [f"model.layers.{layer}.mlp.experts.{expert}.w1" for layer in range(12) for expert in range(12)]
    assert module_order({}, shuffled(names)).names == tuple(names)


HOSTILE: list[dict[str, Any]] = [
    {},
    {"architectures": None, "model_type": 7},
    {"architectures": [], "model_type": ["llama"]},
    {"architectures": [["LlamaForCausalLM"]], "model_type": {}},
    {"architectures": "LlamaForCausalLM"},
    {**LLAMA, "num_hidden_layers": "12"},
    {**LLAMA, "num_hidden_layers": True, "tie_word_embeddings": 1},
    {**LLAMA, "num_hidden_layers": -1},
    {"architectures": ["LlavaForConditionalGeneration"], "text_config": {"model_type": [1]}},
    {"architectures": ["LlavaForConditionalGeneration"], "text_config": 5},
    {"architectures": ["Gemma3nForCausalLM"], "num_hidden_layers": 12, "num_kv_shared_layers": 10**30},
]


@pytest.mark.parametrize("config", HOSTILE, ids=range(len(HOSTILE)))
def test_configurations_are_not_trusted(config: dict[str, Any]) -> None:
    order = module_order(config, llama_names())
    assert set(order.names) | set(order.ignored) == set(llama_names())


def test_names_are_not_trusted() -> None:
    names = [
        "",
        ".",
        "...",
        "model.layers.*.mlp.gate_proj.weight",
        "model.layers.01.mlp.gate_proj.weight",
        "model.layers.-1.mlp.gate_proj.weight",
        "model.layers.²." + "norm",
        "model.layers.٣.mlp.up_proj.weight",
        "model.layers." + "9" * 10_000 + ".mlp.up_proj.weight",
        "a." * 100_000 + "weight",
        "model." * 1000,
        "model.language_model." * 2000 + "x",
        "experts." * 20_000 + "3.w1.weight",
    ]
    for architecture in ("LlamaForCausalLM", "DeepseekV4ForCausalLM", "Gemma3nForCausalLM", "Unheard"):
        start = time.perf_counter()
        order = module_order({"architectures": [architecture]}, names)
        assert set(order.names) - {"lm_head.weight"} == set(names)
        assert order.source == "natural"
        assert all(len(note) < 300 and "\n" not in note for note in order.notes)
        assert time.perf_counter() - start < 2
        assert [layer_of(name) for name in names] == [None] * len(names)


def test_speed() -> None:
    many = llama_names(133)
    module_order(LLAMA, many)
    start = time.perf_counter()
    module_order({**LLAMA, "num_hidden_layers": 133}, many)
    assert time.perf_counter() - start < 0.3  # 0.01 s on a quiet machine
    experts = [
        f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"
        for layer in range(58)
        for expert in range(256)
        for part in ("gate", "up", "down")
    ]
    start = time.perf_counter()
    order = module_order({"architectures": ["DeepseekV3ForCausalLM"]}, experts)
    assert order.names == tuple(experts)
    assert time.perf_counter() - start < 5  # 0.4 s on a quiet machine


def test_loads_without_torch() -> None:
    text = Path(tables.__file__).with_name("orders.json").read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not re.search(r"[^\x00-\x7f]", text)
    sources = "".join(path.read_text() for path in Path(tables.__file__).parent.glob("*.py"))
    assert not re.search(r"^\s*(?:import|from) (?:torch|transformers|numpy)", sources, re.MULTILINE)


# --- Blocks ---------------------------------------------------------------------------------------------------------

BLOCKS = {
    "model.embed_tokens.weight": Block.EMBEDDINGS,
    "transformer.wte.weight": Block.EMBEDDINGS,
    "transformer.wpe.weight": Block.EMBEDDINGS,
    "transformer.word_embeddings.weight": Block.EMBEDDINGS,
    "gpt_neox.embed_in.weight": Block.EMBEDDINGS,
    "model.layers.0.self_attn.q_proj.weight": Block.ATTENTION,
    "transformer.h.3.attn.c_attn.bias": Block.ATTENTION,
    "transformer.h.3.self_attention.query_key_value.weight": Block.ATTENTION,
    "bert.encoder.layer.3.attention.output.dense.weight": Block.ATTENTION,
    "model.layers.3.linear_attn.in_proj_qkvz.weight": Block.ATTENTION,
    "model.layers.3.mixer.q_proj.weight": Block.ATTENTION,
    "model.layers.0.mlp.down_proj.weight": Block.MLP,
    "model.layers.0.mlp.experts.12.up_proj.weight": Block.MLP,
    "model.layers.0.mlp.gate.e_score_correction_bias": Block.MLP,
    "model.layers.0.block_sparse_moe.gate.weight": Block.MLP,
    "model.layers.0.mlp.shared_expert_gate.weight": Block.MLP,
    "model.decoder.layers.3.fc1.weight": Block.MLP,
    "bert.encoder.layer.3.output.dense.weight": Block.MLP,
    "gpt_neox.layers.3.mlp.dense_h_to_4h.weight": Block.MLP,
    "model.layers.0.input_layernorm.weight": Block.NORMS,
    "model.layers.0.self_attn.q_norm.weight": Block.NORMS,
    "model.layers.0.mamba.norm.weight": Block.NORMS,
    "transformer.h.3.ln_1.weight": Block.NORMS,
    "transformer.ln_f.bias": Block.NORMS,
    "model.norm.weight": Block.NORMS,
    "transformer.blocks.0.norm_attn_norm.attn.Wqkv.weight": Block.ATTENTION,
    "roberta_prelayernorm.embeddings.word_embeddings.weight": Block.EMBEDDINGS,
    "lm_head.weight": Block.HEAD,
    "embed_out.weight": Block.HEAD,
    "output.weight": Block.HEAD,
    "model.layers.3.mamba.in_proj.weight": Block.OTHER,
    "backbone.layers.3.mixer.out_proj.weight": Block.OTHER,
    "model.layers.3.conv.in_proj.weight": Block.OTHER,
    "model.vision_tower.encoder.layers.3.self_attn.q_proj.weight": Block.OTHER,
    "visual.blocks.3.norm1.weight": Block.OTHER,
    "model.multi_modal_projector.linear_1.weight": Block.OTHER,
    "mtp.layers.0.mlp.up_proj.weight": Block.OTHER,
    "something.else": Block.OTHER,
}


@pytest.mark.parametrize(("name", "block"), BLOCKS.items())
def test_blocks(name: str, block: Block) -> None:
    assert block_of(name) is block


def test_block_values_are_what_users_write() -> None:
    assert [str(block) for block in Block] == ["embeddings", "attention", "mlp", "norms", "head", "other"]


def test_layers() -> None:
    assert layer_of("model.layers.7.mlp.experts.3.up_proj.weight") == 7
    assert layer_of("transformer.h.11.ln_1.bias") == 11
    assert layer_of("gpt_neox.layers.0.attention.dense.weight") == 0
    assert layer_of("model.language_model.layers.5.input_layernorm.weight") == 5
    assert layer_of("h.2.attn.c_attn.weight") == 2
    assert layer_of("model.altup_projections.1.weight") is None
    assert layer_of("model.visual.blocks.3.norm1.weight") is None
    assert layer_of("model.norm.weight") is None


def test_vocabulary() -> None:
    names = [
        "model.embed_tokens.weight",
        "transformer.wpe.weight",
        "lm_head.bias",
        "lm_head.weight",
        "model.norm.weight",
    ]
    assert vocabulary_tensors(names) == ("model.embed_tokens.weight", "lm_head.bias", "lm_head.weight")


def test_number_of_layers() -> None:
    assert num_layers({"model_type": "gpt2", "n_layer": 12}) == 12
    assert num_layers({"model_type": "gemma3", "text_config": {"num_hidden_layers": 7}}) == 7
    assert num_layers({"num_layers": 3}) == 3
    assert num_layers({"n_layers": True, "text_config": []}) is None


def test_order_is_a_value() -> None:
    assert module_order(LLAMA, llama_names()) == Order(tuple(llama_names()), {}, (), "table", ())
