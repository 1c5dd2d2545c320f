"""Species by name, and their numbers in the tables of the Particle Data Group."""

import functools

from pidgan.errors import NtupleError, nearest


@functools.cache
def pdg_id(species: str) -> int:
    """Return the PDG id of a name; the smallest one, as a proton is a nucleus too."""
    from particle import Particle  # slow to load

    # Full names (`K+`) are slow to make: only particles that start alike get one.
    alike = (p for p in Particle.all() if species.startswith(p.pdg_name))
    found = [int(particle.pdgid) for particle in alike if particle.name == species]
    if not found:
        known = (particle.name for particle in Particle.all())
        raise NtupleError(
            f"species {species!r} is not the PDG name of a particle"
            f"{nearest(species, known)}"
        )
    return min(found, key=abs)


def species_name(pdg: int) -> str:
    """Return the name of a PDG id, or the id if it has no name."""
    from particle import Particle, ParticleNotFound  # slow to load

    try:
        return str(Particle.from_pdgid(pdg).name)
    except ParticleNotFound:
        return str(pdg)


def charge_pair(pdg: int) -> tuple[int, ...]:
    """Return the PDG ids of a particle and its antiparticle, the positive one first.

    A particle that is its own antiparticle is alone.
    """
    from particle import Particle, ParticleNotFound  # slow to load

    try:
        found = [Particle.from_pdgid(own) for own in (pdg, -pdg)]
    except ParticleNotFound:
        return (pdg,)
    return tuple(int(p.pdgid) for p in sorted(found, key=lambda p: -(p.charge or 0)))
