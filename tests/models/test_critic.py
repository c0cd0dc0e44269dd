"""The Critic's rollout and teacher-forced pass against each other and against transformers' own."""

from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from components.models.critic import Critic, CriticRollout, ReasoningLatent
from components.models.lora import LoraSettings, adapter_tensors
from components.verdict.prompt import PROMPT, SYSTEM, conversation

TOKENS = 7


def rollout_with_ends(critic: Critic, photos: list[Tensor], **settings) -> CriticRollout:
    """Completions of different lengths: a token that comes up early in some of them is made the end token."""
    free = critic.generate(photos, generator=torch.Generator().manual_seed(3), **settings)
    critic.end_token = int(free.tokens_BT[0, 2])
    rollout = critic.generate(photos, generator=torch.Generator().manual_seed(3), **settings)
    lengths = rollout.token_mask_BT.sum(dim=1)
    assert lengths[0] <= 3 and lengths.max() == TOKENS, "the test needs completions of different lengths"
    return rollout


def placeholders(critic: Critic) -> tuple[int, int]:
    config = critic.vision_language_model.config
    return config.image_token_id, config.video_token_id


def rows(latent: ReasoningLatent) -> list[Tensor]:
    return [states[mask] for states, mask in zip(latent.states_BLD, latent.mask_BL, strict=True)]


def assert_same_rows(found: ReasoningLatent, expected: ReasoningLatent, tolerance: float = 1e-5) -> None:
    assert len(found.states_BLD) == len(expected.states_BLD)
    for a, b in zip(rows(found), rows(expected), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_the_prompt_is_the_releases_layout(critic: Critic) -> None:
    text = critic.processor.apply_chat_template(conversation(), add_generation_prompt=True, tokenize=False)
    assert text == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
        f"{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_prompts_are_left_padded_and_mark_every_image_position(critic: Critic, photos: list[Tensor]) -> None:
    prompts = critic.prompts(photos)
    image = prompts.input_ids_BP == critic.vision_language_model.config.image_token_id
    assert torch.equal(prompts.mm_token_type_ids_BP.bool(), image)
    assert torch.equal(image.sum(dim=1), prompts.image_grid_thw_B3.prod(dim=1) // 4)
    assert prompts.attention_mask_BP[:, -1].all() and prompts.attention_mask_BP.diff(dim=1).min() >= 0
    assert len(set(prompts.attention_mask_BP.sum(dim=1).tolist())) == 3
    assert (prompts.input_ids_BP[~prompts.attention_mask_BP.bool()] == critic.pad_token).all()


def test_prompts_can_be_chosen_and_repeated(critic: Critic, photos: list[Tensor]) -> None:
    prompts = critic.prompts(photos)
    repeated, again = prompts.repeat(2), critic.prompts([photo for photo in photos for _ in range(2)])
    chosen, alike = prompts[torch.tensor([1, 0, 1])], critic.prompts([photos[1], photos[0], photos[1]])
    for a, b in ((repeated, again), (chosen, alike)):
        for name in vars(a):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


@torch.no_grad()
def test_the_teacher_forced_pass_is_the_one_of_transformers(critic: Critic, photos: list[Tensor]) -> None:
    prompts, (tokens, mask) = critic.prompts(photos[:1]), critic.encode_completions(["<think>\n1. Quality: dark."])
    hidden, logits = critic.forward(prompts, tokens, mask)
    ids = torch.cat([prompts.input_ids_BP, tokens], dim=1)
    reference = critic.model(
        input_ids=ids,
        mm_token_type_ids=torch.cat([prompts.mm_token_type_ids_BP, torch.zeros_like(tokens)], dim=1),
        pixel_values=prompts.pixel_values,
        image_grid_thw=prompts.image_grid_thw_B3,
        output_hidden_states=True,
    )
    torch.testing.assert_close(hidden, reference.hidden_states[-1], atol=1e-5, rtol=1e-5)
    expected = reference.logits[:, prompts.input_ids_BP.shape[1] - 1 : -1]
    written = [i for i in range(expected.shape[-1]) if i not in placeholders(critic)]
    torch.testing.assert_close(logits[..., written], expected[..., written], atol=1e-5, rtol=1e-5)
    log_p, entropy = critic.log_probabilities(prompts, tokens, mask)
    distribution = torch.distributions.Categorical(logits=logits.double())
    torch.testing.assert_close(log_p.double(), distribution.log_prob(tokens), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy.double(), distribution.entropy(), atol=1e-5, rtol=1e-5)


def test_image_positions_are_two_dimensional(critic: Critic, photos: list[Tensor]) -> None:
    """The trap of transformers 5: without the token types, positions are silently those of plain text."""
    prompts = critic.prompts(photos[:1])
    nothing = torch.full((1, 1), critic.pad_token)
    with_types = critic.forward(prompts, nothing, torch.ones_like(nothing, dtype=torch.bool))[0]
    object.__setattr__(prompts, "mm_token_type_ids_BP", torch.zeros_like(prompts.mm_token_type_ids_BP))
    without = critic.forward(prompts, nothing, torch.ones_like(nothing, dtype=torch.bool))[0]
    assert (with_types - without).abs().max() > 1e-3


@pytest.mark.parametrize("penalty", [1.0, 1.05, 100.0])
@torch.no_grad()
def test_greedy_decoding_and_its_latent_are_those_of_transformers(
    critic: Critic, photos: list[Tensor], penalty: float
) -> None:
    prompts = critic.prompts(photos)
    rollout = critic.generate(photos, max_new_tokens=TOKENS, repetition_penalty=penalty)
    reference = critic.model.generate(
        input_ids=prompts.input_ids_BP,
        attention_mask=prompts.attention_mask_BP,
        mm_token_type_ids=prompts.mm_token_type_ids_BP,
        pixel_values=prompts.pixel_values,
        image_grid_thw=prompts.image_grid_thw_B3,
        do_sample=False,
        repetition_penalty=penalty,
        max_new_tokens=TOKENS,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    assert torch.equal(rollout.tokens_BT, reference.sequences[:, prompts.input_ids_BP.shape[1] :])
    states = torch.cat([step[-1] for step in reference.hidden_states], dim=1)
    mask = torch.cat([prompts.attention_mask_BP, torch.ones(3, TOKENS - 1, dtype=torch.long)], dim=1).bool()
    for found, row, kept in zip(rows(rollout.latent), states, mask, strict=True):
        torch.testing.assert_close(found, row[kept], atol=1e-5, rtol=1e-5)


def test_a_rollout_equals_one_teacher_forced_pass(critic: Critic, photos: list[Tensor]) -> None:
    rollout = rollout_with_ends(critic, photos, group=4, temperature=1.0, max_new_tokens=TOKENS)
    prompts, mask = critic.prompts(photos).repeat(4), rollout.token_mask_BT
    assert_same_rows(rollout.latent, critic.latent(prompts, rollout.tokens_BT, mask))
    log_p, _ = critic.log_probabilities(prompts, rollout.tokens_BT, mask)
    torch.testing.assert_close(rollout.log_probabilities_BT[mask], log_p.detach()[mask], atol=1e-5, rtol=1e-5)
    assert (rollout.log_probabilities_BT[~mask] == 0).all()


def test_the_latent_holds_every_position_but_the_last_token(critic: Critic, photos: list[Tensor]) -> None:
    rollout = rollout_with_ends(critic, photos, group=4, temperature=1.0, max_new_tokens=TOKENS)
    prompt_lengths = critic.prompts(photos).attention_mask_BP.sum(dim=1).repeat_interleave(4)
    expected = prompt_lengths + rollout.token_mask_BT.sum(dim=1) - 1
    assert torch.equal(rollout.latent.mask_BL.sum(dim=1), expected)
    assert rollout.latent.mask_BL.shape[1] == expected.max()
    assert rollout.latent.mask_BL.int().diff(dim=1).max() <= 0, "padding belongs on the right"
    assert (rollout.latent.states_BLD[~rollout.latent.mask_BL] == 0).all()


def test_completions_end_with_their_end_token(critic: Critic, photos: list[Tensor]) -> None:
    rollout = rollout_with_ends(critic, photos, group=4, temperature=1.0, max_new_tokens=TOKENS)
    for text, tokens, mask in zip(rollout.texts, rollout.tokens_BT, rollout.token_mask_BT, strict=True):
        kept = tokens[mask]
        assert critic.end_token not in kept[:-1].tolist()
        assert len(kept) == TOKENS or kept[-1] == critic.end_token
        assert (tokens[~mask] == critic.pad_token).all()
        assert text == critic.processor.tokenizer.decode(kept[kept != critic.end_token])


def test_a_photo_beside_others_of_another_size_is_judged_as_if_alone(critic: Critic, photos: list[Tensor]) -> None:
    together = critic.generate(photos, max_new_tokens=TOKENS)
    for index, photo in enumerate(photos):
        alone = critic.generate([photo], max_new_tokens=TOKENS)
        assert alone.texts == together.texts[index : index + 1]
        assert_same_rows(together.latent[index : index + 1], alone.latent)
        torch.testing.assert_close(
            together.log_probabilities_BT[index], alone.log_probabilities_BT[0], atol=1e-5, rtol=1e-5
        )


def test_members_of_a_group_are_independent_and_of_the_same_photo(critic: Critic, photos: list[Tensor]) -> None:
    greedy = critic.generate(photos, max_new_tokens=TOKENS)
    group = critic.generate(photos, group=3, max_new_tokens=TOKENS)
    assert group.texts == [text for text in greedy.texts for _ in range(3)]
    sampled = critic.generate(
        photos, group=3, temperature=1.0, max_new_tokens=TOKENS, generator=torch.Generator().manual_seed(0)
    )
    assert len(set(sampled.texts)) == 9


def test_sampling_follows_its_generator_and_nothing_else(critic: Critic, photos: list[Tensor]) -> None:
    def draw(seed: int) -> list[str]:
        generator = torch.Generator().manual_seed(seed)
        return critic.generate(photos, group=2, temperature=1.0, max_new_tokens=TOKENS, generator=generator).texts

    before = torch.get_rng_state()
    first = draw(0)
    torch.rand(1)
    assert draw(0) == first != draw(1)
    torch.set_rng_state(before)
    draw(0)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match=r"torch\.Generator"):
        critic.generate(photos, temperature=1.0)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@torch.no_grad()
def test_tokens_are_drawn_at_the_temperature_and_reported_at_one(
    critic: Critic, photos: list[Tensor], temperature: float
) -> None:
    critic.model.lm_head.weight.mul_(3)  # so that some tokens are likelier than others
    count, generator = 4000, torch.Generator().manual_seed(0)
    rollout = critic.generate(photos[2:], count, temperature, max_new_tokens=1, generator=generator)
    prompts = critic.prompts(photos[2:])
    nothing = torch.full((1, 1), critic.pad_token)
    _, logits = critic.forward(prompts, nothing, torch.ones_like(nothing, dtype=torch.bool))
    observed = rollout.tokens_BT[:, 0].bincount(minlength=logits.shape[-1])

    def fit(assumed: float) -> float:
        expected = count * (logits[0, 0].double() / assumed).softmax(dim=-1)
        rare = expected < 5
        lumped = [torch.cat([x[~rare], x[rare].sum()[None]]) for x in (observed.double(), expected)]
        return chisquare(*lumped).pvalue

    assert fit(temperature) > 1e-3
    assert fit(1.5 - temperature) < 1e-9, "the test could tell the temperatures apart"
    log_p = logits[0, 0].log_softmax(dim=-1)[rollout.tokens_BT[:, 0]]
    torch.testing.assert_close(rollout.log_probabilities_BT[:, 0], log_p, atol=1e-4, rtol=1e-4)


def test_a_pictures_placeholder_is_never_written(critic: Critic, photos: list[Tensor]) -> None:
    """It would be a picture without pixels to the next teacher-forced pass. Here it is what the model likes best."""
    with torch.no_grad():
        for head in placeholders(critic):
            critic.model.lm_head.weight[head] = (
                10
                * critic.model.model(input_ids=critic.prompts(photos[2:]).input_ids_BP[:, -3:]).last_hidden_state[0, -1]
            )
    generator = torch.Generator().manual_seed(0)
    rollout = critic.generate(photos, group=8, temperature=1.0, max_new_tokens=TOKENS, generator=generator)
    assert not torch.isin(rollout.tokens_BT, torch.tensor(placeholders(critic))).any()
    log_p, entropy = critic.log_probabilities(
        critic.prompts(photos).repeat(8), rollout.tokens_BT, rollout.token_mask_BT
    )
    assert log_p.isfinite().all() and entropy.isfinite().all() and (entropy >= 0).all()


def test_a_verdict_that_ends_at_once_leaves_the_prompts_states(critic: Critic, photos: list[Tensor]) -> None:
    """The release crashes on it: its concatenation of decoded states is then empty."""
    critic.end_token = int(critic.generate(photos[:1], max_new_tokens=1).tokens_BT[0, 0])
    rollout = critic.generate(photos[:1], max_new_tokens=TOKENS)
    assert rollout.texts == [""] and rollout.tokens_BT.tolist() == [[critic.end_token]]
    prompt = critic.instruction_latent(photos[:1], [critic.prompt])
    assert_same_rows(rollout.latent, prompt)


@torch.no_grad()
def test_an_instruction_is_encoded_beside_its_photo_without_padding(critic: Critic, photos: list[Tensor]) -> None:
    words = ["Brighten the photo.", "Warm the white balance by 30 mired, then raise the contrast.", "Leave it."]
    together = critic.instruction_latent(photos, words)
    for index, (photo, instruction) in enumerate(zip(photos, words, strict=True)):
        template = critic.processor.apply_chat_template(
            conversation(instruction), add_generation_prompt=True, tokenize=False
        )
        inputs = critic.processor(text=[template], images=[(photo * 255).round().to(torch.uint8)], return_tensors="pt")
        states = critic.model(**inputs, output_hidden_states=True).hidden_states[-1][0]
        torch.testing.assert_close(rows(together)[index], states, atol=1e-5, rtol=1e-5)


def test_completions_are_encoded_with_their_end(critic: Critic) -> None:
    texts = ["<think>", "1. Increase exposure by 0.5 EV. Größe – 5%"]
    tokens, mask = critic.encode_completions(texts)
    for row, kept, text in zip(tokens, mask, texts, strict=True):
        assert row[kept][-1] == critic.end_token and (row[~kept] == critic.pad_token).all()
        assert critic.processor.tokenizer.decode(row[kept][:-1]) == text
    assert mask.sum(dim=1).max() == tokens.shape[1]


def test_a_fresh_adapter_changes_nothing_and_a_trained_one_survives_saving(
    base: Path, critic: Critic, photos: list[Tensor], tmp_path: Path
) -> None:
    plain = critic.generate(photos, max_new_tokens=TOKENS)
    critic.add_adapter(LoraSettings(rank=2, alpha=4), seed=1)
    fresh = critic.generate(photos, max_new_tokens=TOKENS)
    assert torch.equal(fresh.tokens_BT, plain.tokens_BT)
    assert torch.equal(fresh.latent.states_BLD, plain.latent.states_BLD)
    for index, parameter in enumerate(adapter_tensors(critic.model).values()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(index))
    trained = critic.generate(photos, max_new_tokens=TOKENS)
    assert not torch.equal(trained.latent.states_BLD[:, 0], plain.latent.states_BLD[:, 0])
    critic.save_adapter(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    again = Critic.load(base / "critic", tmp_path).generate(photos, max_new_tokens=TOKENS)
    assert torch.equal(again.tokens_BT, trained.tokens_BT)
    assert torch.equal(again.latent.states_BLD, trained.latent.states_BLD)


def test_only_the_language_model_is_adapted_and_only_the_adapter_is_trained(critic: Critic) -> None:
    critic.add_adapter(LoraSettings(rank=2, alpha=4))
    trained = {name for name, parameter in critic.model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name and "language_model" in name for name in trained)
    modules = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained}
    assert modules == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_loaded_adapter_is_trainable_only_on_request(base: Path, critic: Critic, tmp_path: Path) -> None:
    critic.add_adapter(LoraSettings(rank=2, alpha=4))
    critic.save_adapter(tmp_path)
    for trainable in (True, False):
        loaded = Critic.load(base / "critic", tmp_path, trainable=trainable)
        assert any(parameter.requires_grad for parameter in adapter_tensors(loaded.model).values()) is trainable
