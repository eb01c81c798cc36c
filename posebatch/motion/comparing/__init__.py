"""How one performance differs from another, or from several: aligned in phase, mirrored where asked."""
