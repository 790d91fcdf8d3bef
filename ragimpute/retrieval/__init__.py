"""Whom to copy: the retriever of large panels, and the FAISS index of windows."""
