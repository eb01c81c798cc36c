"""Who is who: persons are linked to tracks over a whole video."""
