"""Names of the branches of a track, whose prefix may be missing in rows in memory."""


def own_name(track: str, name: str) -> str:
    """Return the branch of a quantity of a track: `{track}_{name}`, or its name."""
    return f"{track}_{name}" if track else name


def with_track(pattern: str, track: str) -> str:
    """Return a pattern for a track; without a prefix, its underscore goes too."""
    if not track:
        pattern = pattern.replace("{track}_", "")
    return pattern.replace("{track}", track)


def of_track(track: str) -> str:
    """Return " of TRACK" for a message, nothing without a prefix."""
    return f" of {track}" if track else ""


def labelled(where: object, track: str) -> str:
    """Return where a track is, for a message."""
    return f"{where}, {track}" if track else str(where)
