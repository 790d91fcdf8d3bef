"""BERTWithRAG: one class, assembled from a validated config.

Token models read a haplotype's alleles, positions and frequencies, encode them with a transformer,
encode the retrieved panel haplotypes with the same transformer, and fuse the two site by site.
Copying models start from the Li-Stephens posterior over retrieved haplotypes and correct it where
it is in doubt. Both return the logit of an allele for each haplotype before ("ori") and after
("fused") retrieval has been taken into account.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ragimpute.config import ModelConfig
from ragimpute.model.copying_net import CopyingResidual
from ragimpute.model.embedding import MASK, PAD, SiteEmbedding
from ragimpute.model.encoder import Encoder, FrozenReferences, ReferenceEncoder
from ragimpute.model.evidence import SiteEvidence, StateEvidence
from ragimpute.model.fusion import FUSIONS, Fusion
from ragimpute.model.heads import AlleleHead, GenotypeHead, HaplotypeAttention, ResidualHead
from ragimpute.model.state_pool import StatePool

#: Looks up reference embeddings: (window (B,), haplotype ids (B, K)) -> (B, K, L, D); with a third
#: argument, the site of each row, (B,), -> (B, K, D).
ReferenceLookup = Callable[..., Tensor]


class TokenPath(nn.Module):
    """Embedding, encoder, reference encoder, fusion and heads of a token model.

    Parameters
    ----------
    embedding, encoder, references, fusion
        The parts; ``references`` shares the embedding and the encoder.
    genotype
        Whether the model has this head.
    reconstruction
        Whether the vectors before and after encoder and fusion are given, which the reconstruction
        loss compares.
    haplotype_attention
        Whether the two haplotypes of a sample see each other after fusion.
    precomputed
        Whether references are encoded by a frozen copy of ``references`` (``frozen``), so that
        their embeddings can be made once and looked up.
    features
        Whether the model reads what copying says of each site and of each retrieved haplotype.
    doubt
        The network's output, 0 at first, is added to the logit of copying where the less likely
        allele has more than this probability; None: the output is the logit itself.
    dropout
        Of the genotype head.
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
        features: bool = False,
        doubt: float | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        dim = embedding.dim
        self.offset = doubt is not None
        self.sure_from = 0.0 if doubt is None else math.log((1 - doubt) / doubt)
        self.site_evidence = SiteEvidence(dim=dim) if features else None
        self.state_evidence = StateEvidence(dim=dim) if features else None
        # What copying says comes first; how much tokens add to it is learned, from nothing on.
        self.token_scale = nn.Parameter(torch.tensor(0.0)) if features else None
        self.embedding = embedding
        self.encoder = encoder
        self.references = references
        self.frozen = FrozenReferences(references) if precomputed else None
        self.fusion = fusion
        self.between = HaplotypeAttention(dim=dim) if haplotype_attention else None
        self.allele_ori = None if self.offset else AlleleHead(dim=dim)
        self.allele_fused = ResidualHead(dim=dim) if self.offset else AlleleHead(dim=dim)
        self.genotype = GenotypeHead(dropout=dropout) if genotype else None
        self.reconstruction = reconstruction
        self.table: ReferenceLookup | None = None

    def _read(self, batch: dict[str, Tensor], which: str) -> tuple[Tensor, Tensor]:
        """One haplotype of each sample, embedded and encoded: (B, L, D) each."""
        token = batch[f"hap_{which}"]
        x = self.embedding(token, batch["pos"], batch["af"], batch["af_p"])
        if self.site_evidence is None or self.token_scale is None:
            return x, self.encoder(x, token == PAD)
        said: Tensor = self.site_evidence(batch[f"site_h{which}"], batch["af"], batch["af_p"])
        return x, said + self.token_scale * self.encoder(x + said, token == PAD)

    def _encode_retrieved(self, batch: dict[str, Tensor], which: str) -> Tensor:
        """Encode what a haplotype of each sample retrieved: (B, K, L, D)."""
        encode = self.references if self.frozen is None else self.frozen
        out: Tensor = encode(
            batch[f"rag_seg_h{which}"], batch["pos"], batch["af"], batch[f"rag_af_h{which}"]
        )
        return out

    def _fuse_windows(self, batch: dict[str, Tensor], which: str, query: Tensor) -> Tensor:
        """Fuse haplotypes that were retrieved for whole windows: (B, L, D) -> (B, L, D)."""
        token, ids = batch[f"rag_seg_h{which}"], batch[f"rag_id_h{which}"]
        if self.table is not None:
            refs = self.table(batch["window"], ids)
        else:
            refs = self._encode_retrieved(batch, which)
        pad = (token == PAD).all(dim=2)
        out: Tensor = self.fusion(
            query, refs, batch["af"], batch[f"rag_af_h{which}"], pad, af_p=batch["af_p"]
        )
        return out

    def _fuse_sites(
        self, batch: dict[str, Tensor], which: str, query: Tensor, chosen: Tensor
    ) -> Tensor:
        """Fuse haplotypes that were retrieved by site at the sites (B, L) that are chosen.

        The N chosen sites of all samples become those of one long window, as a fusion looks at
        each site by itself. Elsewhere the query stays as it is.
        """
        b, site = chosen.nonzero(as_tuple=True)
        ids = batch[f"rag_id_h{which}"].transpose(1, 2)[b, site]  # (N, K)
        token = batch[f"rag_seg_h{which}"].transpose(1, 2)[b, site]
        if self.table is not None:
            refs = self.table(batch["window"][b], ids, site)  # (N, K, D)
        else:
            refs = self._encode_retrieved(batch, which).transpose(1, 2)[b, site]
        if self.state_evidence is not None and self.token_scale is not None:
            states = batch[f"state_h{which}"].transpose(1, 2)[b, site]  # (N, K, F)
            refs = self.state_evidence(states, token) + self.token_scale * refs
        af_refs = batch[f"rag_af_h{which}"].transpose(1, 2)[b, site]
        log_mass = batch[f"rag_log_mass_h{which}"].transpose(1, 2)[b, site]
        af, af_p = (batch[name][b, site][None] for name in ("af", "af_p"))
        fused = self.fusion(
            query[b, site][None], refs.transpose(0, 1)[None], af, af_refs.T[None],
            (token == PAD).T[None], af_p=af_p, log_weight=log_mass.T[None],
        )  # fmt: skip
        return query.index_put((b, site), fused[0].to(query.dtype))

    def _fuse(self, batch: dict[str, Tensor], which: str, query: Tensor, chosen: Tensor) -> Tensor:
        """Fuse the encoded sites (B, L, D) of a haplotype of each sample with what it retrieved."""
        if batch[f"rag_id_h{which}"].dim() == 2:
            return self._fuse_windows(batch, which, query)
        return self._fuse_sites(batch, which, query, chosen)

    def _chosen(self, batch: dict[str, Tensor], which: str) -> Tensor:
        """The sites (B, L) at which the network has a say: where copying is in doubt, if asked."""
        known = batch[f"hap_{which}"] != PAD
        if not self.offset:
            return known
        return known & (batch[f"ls_logit_h{which}"].abs() < self.sure_from)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        before, ori = zip(*(self._read(batch, which) for which in "12"), strict=True)
        chosen = [self._chosen(batch, which) for which in "12"]
        fused = [
            self._fuse(batch, which, x, sites)
            for which, x, sites in zip("12", ori, chosen, strict=True)
        ]
        if self.between is not None:
            fused = list(self.between(*fused))
        out = {}
        for i, (h, x, y) in enumerate(zip(("h1", "h2"), ori, fused, strict=True)):
            change = self.allele_fused(y)
            if self.allele_ori is None:
                logit = batch[f"ls_logit_h{i + 1}"]
                change = change.masked_fill(~chosen[i], 0.0)
                out[f"{h}_ori"], out[f"{h}_fused"] = logit, logit + change
            else:
                out[f"{h}_ori"], out[f"{h}_fused"] = self.allele_ori(x), change
        if self.genotype is not None:
            shares = (batch[name] for name in ("ref", "het", "hom"))
            out["genotype"] = self.genotype(out["h1_fused"], out["h2_fused"], *shares)
        if self.reconstruction:
            for i in range(2):
                out |= {f"h{i + 1}_before": before[i], f"h{i + 1}_after": fused[i]}
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
        copying models). Token models may add ``genotype`` (B, L, 3), and ``h1_before``,
        ``h1_after``, ``h2_before`` and ``h2_after`` (B, L, D), a haplotype's vectors when they are
        embedded and after fusion.
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
        use_af=config.reference.af,
    )
    fusion = FUSIONS[config.fusion.name](
        size.dim, size.num_heads, config.fusion.residual_scale, config.fusion.rare_weight_max,
        size.dropout,
    )  # fmt: skip
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
            features=config.li_stephens.features,
            doubt=config.li_stephens.doubt if config.li_stephens.offset else None,
            dropout=size.dropout,
        )
    )


__all__ = ["MASK", "PAD", "BERTWithRAG", "ReferenceLookup", "TokenPath", "build"]
