"""Species by name: the PDG id of what a bundle or a map is for."""

import functools

from pidgan.errors import NtupleError


@functools.cache
def pdg_id(species: str) -> int:
    """Return the PDG id of a name; the smallest, as a proton is a nucleus too.

    Raises:
        NtupleError: no particle has that name.

    Example:
        >>> pdg_id("K-")
        -321
    """
    from particle import Particle  # slow to load

    # Full names (`K+`) are slow to make: only for what starts like the species.
    alike = (p for p in Particle.all() if species.startswith(p.pdg_name))
    found = [int(particle.pdgid) for particle in alike if particle.name == species]
    if not found:
        raise NtupleError(f"species {species!r} is no particle's PDG name")
    return min(found, key=abs)


def species_name(pdg: int) -> str:
    """Return the name of a PDG id, or the id where it has none.

    Example:
        >>> species_name(22)
        'gamma'
    """
    from particle import Particle, ParticleNotFound  # slow to load

    try:
        return str(Particle.from_pdgid(pdg).name)
    except ParticleNotFound:
        return str(pdg)
