"""SAM: windows and global layers, prompts of all kinds, simulated users, losses, prompts after one encoding."""

import pytest
import torch
import transformers
from torch.nn import functional as F
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.losses import dice_loss, focal_loss
from hf_zoo.modeling.sam.interaction import clicks, first_prompts, iou, noisy_boxes, random_pixels, resize_masks
from hf_zoo.modeling.sam.prompt_encoder import BOTTOM_RIGHT, FOREGROUND, NO_POINT, TEXT, TOP_LEFT

TEXT_CONFIG = {
    **{"model_type": "zoo_mlm", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16},
    **{"num_hidden_layers": 1, "num_attention_heads": 2},
}


def build(**options):
    """A tiny model with weights far from their initial values."""
    torch.manual_seed(0)
    model = hf_zoo.create_model("sam-tiny", **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def squares(rows=2, side=64):
    """A batch of images with two bright squares each, and their masks."""
    masks = torch.zeros(rows, 2, side, side)
    for row in range(rows):
        masks[row, 0, 4 + row : 24 + row, 8:28] = 1
        masks[row, 1, 36:56, 32 + row : 50 + row] = 1
    images = torch.zeros(rows, 3, side, side)
    images[:, :2] = masks
    return images, masks


# the image encoder


@pytest.mark.parametrize("global_layers, sees", [([], False), ([1], True)])
@torch.no_grad()
def test_only_global_layers_see_beyond_their_window(global_layers, sees):
    model = build(image_size=128, global_attn_indexes=global_layers)  # a grid of 16, in windows of 3
    images = torch.randn(1, 3, 128, 128)
    changed = images.clone()
    changed[:, :, 0, 0] += 5
    first, second = (model.image_encoder(x, output_hidden_states=True).hidden_states[-1] for x in (images, changed))
    difference = (first - second).abs().amax(-1)[0]
    assert difference[:3, :3].min() > 1e-6
    assert bool((difference[3:, 3:] > 0).any()) is sees
    assert bool((difference[:3, 3:] > 0).any()) is sees


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("axis", ["h", "w"])
@torch.no_grad()
def test_relative_positions_matter(layer, axis):
    model, images = build(), torch.randn(1, 3, 64, 64)
    before = model.get_image_embeddings(images)
    getattr(model.image_encoder.layers[layer].self_attn, f"rel_pos_{axis}").zero_()
    assert (model.get_image_embeddings(images) - before).abs().max() > 1e-3


@torch.no_grad()
def test_absolute_positions_matter():
    model, images = build(), torch.randn(1, 3, 64, 64)
    before = model.get_image_embeddings(images)
    model.image_encoder.pos_embed.zero_()
    assert (model.get_image_embeddings(images) - before).abs().max() > 1e-3


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(images, \*\(3, 64, 64\)\), got \(1, 3, 32, 64\)"):
        build()(torch.zeros(1, 3, 32, 64))


# prompts


@torch.no_grad()
def test_a_label_changes_its_token_by_the_types_alone():
    model = build()
    points = torch.rand(1, 1, 2, 2) * 64
    tokens = [
        model.prompt_encoder.tokens(points, torch.tensor([[[kind, 1]]]), model.positions) for kind in (0, 1, -1, -10)
    ]
    types = model.prompt_encoder.point_types.weight
    assert_close((tokens[1] - tokens[0])[0, 0, 0], types[1] - types[0])
    for other in tokens[1:]:
        assert torch.equal(other[0, 0, 1], tokens[0][0, 0, 1])
    assert torch.equal(tokens[2][0, 0, 0], model.prompt_encoder.not_a_point_embed.weight[0])
    assert not tokens[3][0, 0, 0].any()
    assert_close(tokens[0][0, 0, 0], model.positions((points[0, 0, 0] + 0.5) / 64) + types[0])


@torch.no_grad()
def test_boxes_are_two_corners():
    model, images = build(), torch.randn(1, 3, 64, 64)
    boxes = torch.tensor([[[3.0, 5, 40, 33]]])
    corners = boxes.view(1, 1, 2, 2)
    kinds = torch.tensor([[[TOP_LEFT, BOTTOM_RIGHT]]])
    answer = model.answer(model.get_image_embeddings(images), (corners, kinds), None, None, (1, 1))
    assert_close(model(images, input_boxes=boxes).pred_masks, answer[0][:, :, 1:])


@torch.no_grad()
def test_dense_prompts_move_the_mask():
    model, images = build(), torch.randn(1, 3, 64, 64)
    points = {"input_points": torch.tensor([[[[20.0, 20]]]])}
    plain = model(images, **points).pred_masks
    earlier = torch.full((1, 1, 32, 32), -5.0)
    earlier[..., 8:16] = 5
    guided = model(images, **points, input_masks=earlier).pred_masks
    assert (guided - plain).abs().max() > 1e-2
    assert (guided - model(images, **points, input_masks=-earlier).pred_masks).abs().max() > 1e-2
    with pytest.raises(ValueError, match=r"32, 32\), got \(1, 1, 8, 8\)"):
        model(images, **points, input_masks=earlier[..., :8, :8])


@torch.no_grad()
def test_prompts_do_not_see_each_other_and_images_are_encoded_once():
    model, images = build(), torch.randn(2, 3, 64, 64)
    points, earlier = torch.rand(2, 3, 2, 2) * 64, torch.randn(2, 3, 32, 32)
    embeddings = model.get_image_embeddings(images)
    for more in ({}, {"input_masks": earlier}):
        whole = model(images, input_points=points, **more)
        for p in range(3):
            one = {name: value[:, p : p + 1] for name, value in more.items()}
            alone = model(image_embeddings=embeddings, input_points=points[:, p : p + 1], **one)
            assert_close(whole.pred_masks[:, p], alone.pred_masks[:, 0], atol=1e-5, rtol=1e-4)
            assert_close(whole.iou_scores[:, p], alone.iou_scores[:, 0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_several_masks_or_one():
    model, inputs = build(), build().dummy_inputs
    several, one = (model(**inputs, multimask_output=flag) for flag in (True, False))
    assert several.pred_masks.shape == (2, 1, 3, 32, 32)
    assert one.pred_masks.shape == (2, 1, 1, 32, 32)
    masks = torch.cat((one.pred_masks, several.pred_masks), dim=2)
    for a in range(4):
        for b in range(a):
            assert (masks[:, :, a] - masks[:, :, b]).abs().max() > 1e-3


def test_inputs_that_do_not_fit_are_named():
    model = build()
    images = torch.zeros(2, 3, 64, 64)
    with pytest.raises(ValueError, match="exactly one of pixel_values and image_embeddings"):
        model()
    with pytest.raises(ValueError, match=r"\(3, 1\)"):
        model(images, input_points=torch.zeros(3, 1, 1, 2))
    with pytest.raises(ValueError, match="3 prompts"):
        model(images, input_points=torch.zeros(2, 3, 1, 2), input_boxes=torch.zeros(2, 2, 4))
    with pytest.raises(ValueError, match="text_config"):
        model(images, input_ids=torch.ones(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="image_size must be a multiple of patch_size"):
        hf_zoo.create_config("sam-tiny", image_size=60)
    with pytest.raises(ValueError, match="global_attn_indexes has 2"):
        hf_zoo.create_config("sam-tiny", global_attn_indexes=[2])
    with pytest.raises(ValueError, match="num_decoder_heads=3"):
        hf_zoo.create_config("sam-tiny", num_decoder_heads=3)


# text


@torch.no_grad()
def test_a_text_is_one_token_beside_the_others():
    model, images = build(text_config=TEXT_CONFIG), torch.randn(2, 3, 64, 64)
    ids = torch.tensor([[[6, 7, 8], [6, 9, 0]], [[5, 5, 5], [8, 7, 0]]])
    mask = torch.tensor([[[1, 1, 1], [1, 1, 0]], [[1, 1, 1], [1, 1, 0]]])
    answer = model(images, input_ids=ids, attention_mask=mask).pred_masks
    assert answer.shape[:2] == (2, 2)
    vectors = model.get_text_embeddings(ids, mask)
    assert_close(model(images, text_embeds=vectors).pred_masks, answer)
    expected = model.text_encoder(ids[0, 1:, :2]).last_hidden_state.mean(1)
    assert_close(vectors[0, 1], expected[0], atol=1e-5, rtol=1e-4)
    tokens = model.prompt_encoder.tokens(
        torch.zeros(2, 2, 2, 2), torch.tensor([TEXT, NO_POINT]).expand(2, 2, -1), model.positions, vectors
    )
    assert_close(tokens[:, :, 0], model.prompt_encoder.text_projection(vectors))
    with_click = model(images, text_embeds=vectors, input_points=torch.rand(2, 2, 1, 2) * 64).pred_masks
    assert (with_click - answer).abs().max() > 1e-3
    one_text = model(images, input_ids=ids[:, 0], input_points=torch.rand(2, 3, 1, 2) * 64)
    assert one_text.pred_masks.shape[:2] == (2, 3)  # one text for all prompts of an image


def test_the_text_encoder_learns_and_is_saved(tmp_path):
    model = build(text_config=TEXT_CONFIG, text_probability=1.0).train()
    images, masks = squares()
    ids = torch.tensor([[[6, 7], [8, 9]]] * 2)
    model(images, input_ids=ids, labels=masks).loss.backward()
    assert model.prompt_encoder.text_projection.weight.grad.abs().max() > 0
    assert model.text_encoder.embed_tokens.weight.grad[6:10].abs().max() > 0
    model.eval().save_pretrained(tmp_path)
    again = transformers.AutoModelForMaskGeneration.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert_close(again(images, input_ids=ids).pred_masks, model(images, input_ids=ids).pred_masks)


# losses and the simulated user


def test_losses_by_hand():
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    truth = (torch.rand(2, 3, 4, 5) < 0.4).double()
    p = logits.sigmoid()
    p_t = torch.where(truth > 0, p, 1 - p)
    a_t = torch.where(truth > 0, 0.25, 0.75).double()
    assert_close(focal_loss(logits, truth), (-a_t * (1 - p_t) ** 2 * p_t.log()).mean((-2, -1)))
    both, sums = (p * truth).sum((-2, -1)), p.sum((-2, -1)) + truth.sum((-2, -1))
    assert_close(dice_loss(logits, truth), 1 - (2 * both + 1) / (sums + 1))


def test_clicks_are_where_the_mask_is_wrong():
    torch.manual_seed(0)
    truth = torch.zeros(1, 3, 8, 8, dtype=torch.bool)
    truth[:, :, 2:5, 3:6] = True
    masks = truth.clone()
    masks[:, 0, 4, 5] = False  # one pixel is missed
    masks[:, 1, 7, 0] = True  # one is too many
    for _ in range(5):
        points, labels = clicks(truth, masks, 64)
        assert labels.flatten().tolist() == [1, 0, 1]
        assert points[0, :2, 0].tolist() == [[5.5 * 8 - 0.5, 4.5 * 8 - 0.5], [0.5 * 8 - 0.5, 7.5 * 8 - 0.5]]
        x, y = ((points[0, 2, 0] + 0.5) / 8 - 0.5).long().tolist()
        assert truth[0, 2, y, x]  # nothing is wrong: a click on the mask


def test_every_pixel_of_a_region_is_drawn():
    torch.manual_seed(0)
    region = torch.zeros(2000, 1, 4, 4)
    region[:, :, 1, 2] = region[:, :, 3, 0] = 1
    places = random_pixels(region)
    shares = [((places[:, 0] == torch.tensor(place)).all(-1)).float().mean() for place in ([2, 1], [0, 3])]
    assert sum(shares) == 1
    assert abs(shares[0] - 0.5) < 0.05


def test_boxes_hold_the_mask_and_move_a_little():
    torch.manual_seed(0)
    truth = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    truth[:, :, 2:5, 3:7] = True
    exact = noisy_boxes(truth, 64, 0.0, 20.0)
    assert exact.flatten().tolist() == [23.5, 15.5, 55.5, 39.5]
    many = noisy_boxes(truth.expand(5000, 1, 8, 8), 64, 0.1, 5.0)
    moved = many - exact
    assert moved.abs().max() == 5
    assert_close(moved[:, 0, :, 1].std().item(), 2.4, atol=0.15, rtol=0)  # a tenth of 24
    assert_close(moved.mean().item(), 0.0, atol=0.1, rtol=0)


def test_first_prompts_are_of_all_kinds():
    torch.manual_seed(0)
    truth = torch.zeros(3000, 1, 8, 8, dtype=torch.bool)
    truth[..., 2:4, 5:7] = True
    points, labels = first_prompts(truth, 64, (0.1, 20.0), 0.5, 0.25)
    kinds = {
        kind: (labels[:, 0] == torch.tensor(kind)).all(-1)
        for kind in ((FOREGROUND, NO_POINT), (TOP_LEFT, BOTTOM_RIGHT), (TEXT, NO_POINT))
    }
    assert [round(rows.float().mean().item(), 1) for rows in kinds.values()] == [0.4, 0.4, 0.2]  # 3/8, 3/8, 1/4
    x, y = points[kinds[FOREGROUND, NO_POINT]][:, 0, 0].unbind(-1)
    assert (x >= 40).all() and (x < 56).all() and (y >= 16).all() and (y < 32).all()
    assert not (first_prompts(truth, 64, (0.1, 20.0), 0.5, 0.0)[1] == TEXT).any()


def test_masks_of_any_resolution_and_their_iou():
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :3] = 1
    assert resize_masks(truth, 4)[0, 0, 0].tolist() == [True, True, False, False]  # half of a pixel counts
    a, b = torch.zeros(2, 1, 4, 4, dtype=torch.bool), torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    a[0, 0, :2], b[0, 0, 1:3] = True, True
    assert iou(a, b).flatten().tolist() == [pytest.approx(1 / 3), 1.0]


def test_the_conversation_has_the_published_length():
    model = build(num_clicks=8, num_refinements=2)
    images, masks = squares()
    truth, embeddings = resize_masks(masks, 32), model.get_image_embeddings(images)
    lengths, dense = [], []
    answer = model.answer

    def counted(embeddings, prompts, masks, *rest):
        lengths.append(prompts[1].shape[2])
        dense.append(masks)
        return answer(embeddings, prompts, masks, *rest)

    model.answer = counted
    with torch.no_grad():
        steps = list(model.interact(embeddings, truth))
    assert len(steps) == 11
    assert lengths[0] == 2 and lengths[-1] == 10  # eight clicks
    assert lengths[-1] == lengths[-2]  # the last pass has no new one
    assert sum(a == b for a, b in zip(lengths, lengths[1:], strict=False)) == 2
    assert dense[0] is None
    for step, masks in zip(steps, dense[1:], strict=False):
        assert torch.equal(step.best, masks)
    assert [step.masks.shape[2] for step in steps] == [3] + [1] * 10
    first = steps[0]
    best = first.scores.argmax(-1)
    assert torch.equal(first.best[1, 0], first.masks[1, 0, best[1, 0]])


def test_the_loss_is_that_of_the_best_mask():
    model = build(num_clicks=0, num_refinements=0, box_probability=0.0)
    images, masks = squares()
    torch.manual_seed(1)
    got = model(images, labels=masks)
    torch.manual_seed(1)
    truth = resize_masks(masks, 32)
    prompts = first_prompts(truth, 64, (0.1, 20.0), 0.0, 0.0)
    logits, scores = model.answer(model.get_image_embeddings(images), prompts, None, None, (2, 2))
    logits, scores = logits[:, :, 1:], scores[:, :, 1:]
    target = truth[:, :, None].expand(logits.shape)
    losses = 20 * focal_loss(logits, target.float()) + dice_loss(logits, target.float())
    quality = F.mse_loss(scores, iou(logits > 0, target))
    assert_close(got.mask_loss, losses.amin(-1).mean())
    assert_close(got.iou_loss, quality)
    assert_close(got.loss, losses.amin(-1).mean() + quality)
    assert not got.mask_loss.requires_grad


def test_empty_masks_are_filling():
    model = build(num_clicks=0, num_refinements=0, box_probability=1.0, box_noise=0.0)
    images, masks = squares()
    filled = torch.cat((masks, torch.zeros_like(masks)), dim=1)
    torch.manual_seed(1)
    whole = model(images, labels=filled).loss
    torch.manual_seed(2)
    assert_close(whole, model(images, labels=masks).loss)
    assert model(images, labels=torch.zeros_like(masks)).loss == 0


def test_the_seed_decides_what_the_user_does():
    model = build()
    images, masks = squares()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model(images, labels=masks).loss.item())
    assert losses[0] == losses[1] != losses[2]


def test_given_prompts_start_the_conversation():
    model = build(num_clicks=0, num_refinements=0)
    images, masks = squares()
    boxes = torch.tensor([[[8.0, 4, 28, 24], [32, 36, 50, 56]]]).expand(2, -1, -1)
    with_labels = model(images, input_boxes=boxes, labels=masks)
    assert_close(with_labels.pred_masks, model(images, input_boxes=boxes).pred_masks)


def test_training_learns_masks_and_ranks_them():
    """Nested squares: a click may mean either. After training, higher scores go with better masks."""
    torch.manual_seed(0)
    options = {"num_clicks": 1, "num_refinements": 0, "box_probability": 0.0, "initializer_range": 0.1}
    model = hf_zoo.create_model("sam-tiny", **options)
    images, masks = torch.zeros(16, 3, 64, 64), torch.zeros(16, 2, 64, 64)
    for row in range(16):
        x, y = torch.randint(0, 24, (2,)).tolist()
        masks[row, 0, y : y + 40, x : x + 40] = 1
        masks[row, 1, y + 12 : y + 28, x + 12 : x + 28] = 1
    images[:, :2] = masks
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(150):
        loss = model(images, labels=masks).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
    truth, found, scores = resize_masks(masks, 32), [], []
    with torch.no_grad():
        embeddings = model.eval().get_image_embeddings(images)
        for _ in range(5):
            step = next(model.interact(embeddings, truth))
            found.append(iou(step.masks > 0, truth[:, :, None].expand(step.masks.shape)))
            scores.append(step.scores)
    found, scores = torch.cat(found), torch.cat(scores)
    assert found.amax(-1).mean() > 0.75  # one of the three is right
    chosen = found.gather(-1, scores.argmax(-1, keepdim=True))
    assert chosen.mean() > found.mean() + 0.05
    assert torch.corrcoef(torch.stack((found.flatten(), scores.flatten())))[0, 1] > 0.3
