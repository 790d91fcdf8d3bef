"""BERTWithRAG: one class, assembled from a validated config.

Token models read a haplotype's alleles, positions and frequencies, encode them with a transformer,
encode the retrieved panel haplotypes with the same transformer, and fuse the two site by site.
Copying models start from the Li-Stephens posterior over retrieved haplotypes and correct it where
it is in doubt. Both return the logit of an allele for each haplotype before ("ori") and after
("fused") retrieval has been taken into account.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ragimpute.config import ModelConfig
from ragimpute.model.copying_net import CopyingResidual
from ragimpute.model.embedding import MASK, PAD, SiteEmbedding
from ragimpute.model.encoder import Encoder, FrozenReferences, ReferenceEncoder
from ragimpute.model.fusion import FUSIONS, Fusion
from ragimpute.model.heads import AlleleHead, GenotypeHead, HaplotypeAttention, ReconstructionHead
from ragimpute.model.state_pool import StatePool

#: Looks up reference embeddings: (window (B,), haplotype ids (B, K)) -> (B, K, L, D).
ReferenceLookup = Callable[[Tensor, Tensor], Tensor]


class TokenPath(nn.Module):
    """Embedding, encoder, reference encoder, fusion and heads of a token model.

    Parameters
    ----------
    embedding, encoder, references, fusion
        The parts; ``references`` shares the embedding and the encoder.
    genotype, reconstruction
        Whether the model has these heads.
    haplotype_attention
        Whether the two haplotypes of a sample see each other after fusion.
    precomputed
        Whether references are encoded by a frozen copy of ``references`` (``frozen``), so that
        their embeddings can be made once and looked up.
    """

    def __init__(
        self,
        *,
        embedding: SiteEmbedding,
        encoder: Encoder,
        references: ReferenceEncoder,
        fusion: Fusion,
        genotype: bool = True,
        reconstruction: bool = True,
        haplotype_attention: bool = False,
        precomputed: bool = False,
    ) -> None:
        super().__init__()
        dim = embedding.dim
        self.embedding = embedding
        self.encoder = encoder
        self.references = references
        self.frozen = FrozenReferences(references) if precomputed else None
        self.fusion = fusion
        self.between = HaplotypeAttention(dim=dim) if haplotype_attention else None
        self.allele_ori = AlleleHead(dim=dim)
        self.allele_fused = AlleleHead(dim=dim)
        self.genotype = GenotypeHead(dim=dim) if genotype else None
        self.reconstruction = ReconstructionHead(dim=dim) if reconstruction else None
        self.table: ReferenceLookup | None = None

    def _read(self, batch: dict[str, Tensor], which: str) -> Tensor:
        """Encode one haplotype of each sample: (B, L, D)."""
        token = batch[f"hap_{which}"]
        x = self.embedding(token, batch["pos"], batch["af"], batch["af_p"])
        out: Tensor = self.encoder(x, token == PAD)
        return out

    def _retrieve(self, batch: dict[str, Tensor], which: str) -> tuple[Tensor, Tensor]:
        """Encoded references (B, K, L, D), and which of them are padding (B, K)."""
        token = batch[f"rag_seg_h{which}"]
        ref_pad = (token == PAD).all(dim=2)
        if self.table is not None:
            return self.table(batch["window"], batch[f"rag_id_h{which}"]), ref_pad
        encode = self.references if self.frozen is None else self.frozen
        return encode(token, batch["pos"], batch["af"], batch[f"rag_af_h{which}"]), ref_pad

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        ori = [self._read(batch, which) for which in "12"]
        fused = []
        for which, query in zip("12", ori, strict=True):
            refs, ref_pad = self._retrieve(batch, which)
            af_refs = batch[f"rag_af_h{which}"]
            fused.append(self.fusion(query, refs, batch["af"], af_refs, ref_pad))
        if self.between is not None:
            fused = list(self.between(*fused))
        out = {f"h{i + 1}_ori": self.allele_ori(x) for i, x in enumerate(ori)}
        out |= {f"h{i + 1}_fused": self.allele_fused(x) for i, x in enumerate(fused)}
        if self.genotype is not None:
            out["genotype"] = self.genotype(*fused)
        if self.reconstruction is not None:
            for i, x in enumerate(ori):
                out[f"h{i + 1}_reconstruction"] = self.reconstruction(x)
        return out


class BERTWithRAG(nn.Module):
    """Imputation by retrieved haplotypes: a token path, or copying with a residual.

    Exactly one of ``tokens`` and ``residual`` is given.

    Parameters
    ----------
    tokens
        The parts of a token model.
    residual
        The correction of a copying model.
    """

    def __init__(
        self, *, tokens: TokenPath | None = None, residual: CopyingResidual | None = None
    ) -> None:
        super().__init__()
        if (tokens is None) == (residual is None):
            raise ValueError("a model is either a token model or a copying model")
        self.tokens = tokens
        self.residual = residual

    @property
    def is_copying(self) -> bool:
        """Whether the model corrects Li-Stephens copying."""
        return self.residual is not None

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logits of both haplotypes.

        Parameters
        ----------
        batch
            Token models: see :meth:`ragimpute.token_model.windows.TokenWindows.batch`. Copying
            models: for each haplotype h1, h2 its sites in doubt, in order: ``ls_logit_h1`` (B, L),
            ``evidence_h1`` (B, L, F), ``pos_h1`` (B, L) in cM, ``pad_h1`` (B, L); ``tokens_h1``
            (B, L, S, C) if the network reads states one by one.

        Returns
        -------
        ``h1_fused, h2_fused, h1_ori, h2_ori``, each (B, L): logits of ALT (of the minor allele for
        copying models). Token models may add ``genotype`` (B, L, 3) and ``h1_reconstruction``,
        ``h2_reconstruction`` (B, L) in [0, 1].
        """
        if self.tokens is not None:
            given: dict[str, Tensor] = self.tokens(batch)
            return given
        assert self.residual is not None
        out = {}
        for h in ("h1", "h2"):
            logit = batch[f"ls_logit_{h}"]
            change = self.residual(
                batch[f"evidence_{h}"], batch[f"pos_{h}"], batch[f"pad_{h}"],
                batch.get(f"tokens_{h}"),
            )  # fmt: skip
            out[f"{h}_ori"] = logit
            out[f"{h}_fused"] = logit + change.masked_fill(batch[f"pad_{h}"], 0.0)
        return out

    def num_parameters(self) -> int:
        """The number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @torch.no_grad()
    def encode_references(
        self, token: Tensor, position_cm: Tensor, af: Tensor, af_own: Tensor
    ) -> Tensor:
        """Embeddings of panel haplotypes for a :data:`ReferenceLookup`.

        Parameters
        ----------
        token, af_own
            Shape (H, L): alleles, and ALT frequency in each haplotype's own population.
        position_cm, af
            Shape (L,).

        Returns
        -------
        Shape (H, L, D).
        """
        if self.tokens is None:
            raise ValueError("a copying model has no reference embeddings")
        encode = self.tokens.references if self.tokens.frozen is None else self.tokens.frozen
        out: Tensor = encode(token[None], position_cm[None], af[None], af_own[None])[0]
        return out


def build(config: ModelConfig) -> BERTWithRAG:
    """Assemble a model: the one place where names in YAML become modules."""
    if config.fusion.name == "copying":
        from ragimpute.evidence.features import NUM_FEATURES

        net = config.copying
        states = None
        if net.num_set_tokens:
            from ragimpute.evidence.features import TOKEN_FEATURES, TOKEN_UNIT

            states = StatePool(
                num_features=NUM_FEATURES,
                num_token_features=len(TOKEN_FEATURES),
                unit=TOKEN_UNIT,
                dim=net.set_dim,
                num_heads=net.set_heads,
            )
        residual = CopyingResidual(
            num_features=NUM_FEATURES,
            width=net.width,
            num_context_layers=net.num_context_layers,
            num_heads=net.num_heads,
            states=states,
        )
        return BERTWithRAG(residual=residual)
    parts = config.embedding
    size = config.encoder
    embedding = SiteEmbedding(
        dim=size.dim,
        use_position=parts.position_cm,
        use_order=parts.order,
        use_af=parts.af,
        position_cnn=parts.position_cnn,
    )
    encoder = Encoder(
        dim=size.dim,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        mlp_ratio=size.mlp_ratio,
        dropout=size.dropout,
        checkpointing=size.checkpointing,
    )
    references = ReferenceEncoder(
        embedding=embedding,
        encoder=encoder,
        chunk=None if config.reference.chunk == "auto" else config.reference.chunk,
        chunk_bytes=config.reference.chunk_bytes,
        checkpointing=config.reference.checkpointing,
    )
    fusion = FUSIONS[config.fusion.name](
        size.dim, size.num_heads, config.fusion.residual_scale, config.fusion.rare_weight_max
    )
    return BERTWithRAG(
        tokens=TokenPath(
            embedding=embedding,
            encoder=encoder,
            references=references,
            fusion=fusion,
            genotype=config.heads.genotype,
            reconstruction=config.heads.reconstruction,
            haplotype_attention=config.fusion.haplotype_attention,
            precomputed=config.reference.mode == "precomputed",
        )
    )


__all__ = ["MASK", "PAD", "BERTWithRAG", "ReferenceLookup", "TokenPath", "build"]
