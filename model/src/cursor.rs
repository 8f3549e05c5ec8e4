//! Where a reader stands: LSN, offset, watermark and epoch in one opaque text.
