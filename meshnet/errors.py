"""
Every exception meshnet raises. A class per decision a caller makes, not per place.

* MeshnetError
  - UsageError               the command was called wrongly                       (exit 2)
  - ConfigError              the operator's file, flag or name is wrong           (exit 2)
    · InvalidName            a name breaks the rules of its kind
    · InvalidLabel           a label is malformed or reserved
    · InvalidPrefix          a CIDR is unusable
    · ManifestRefused        a manifest's fields are wrong, or ask what is not enforced
      x ForeignKind          it is of a kind that Kubernetes has and meshnet does not
  - NotFound                 what was named does not exist                        (exit 4)
  - AlreadyExists            the name is taken
  - Refused                  a rule of the mesh forbids it, waiting does not help
    · TokenRefused           a join token is malformed, expired, used or foreign
    · PermissionRefused      the caller may not do that                           (exit 6)
  - RegistryError            etcd, or what is in it
    · Unreachable            no answer; another try may help             (transient, exit 5)
    · Conflict               somebody else wrote the key first           (transient)
    · Compacted              the revision asked for is gone              (transient)
    · LeaseLost              our lease expired, its keys are gone        (transient)
    · Denied                 etcd or a gateway refused the request
      x NotPermitted         it does not show that key, or not to us
    · PoisonedKey            a key's value cannot be used: skipped, reported once
  - AllocationError
    · PoolExhausted          no free prefix, address or number is left
  - AgentUnreachable         no agent answers on its socket                       (exit 5)
  - NotStarted               a command could not be run in an endpoint            (exit 125..127)
  - Timeout                  what was waited for did not happen                   (exit 124)
  - CapabilityMissing        the kernel or a permission lacks something           (exit 6)
  - DatapathError            the kernel refused
    · VerifierRejected       a BPF program did not load
    · CompileFailed          the C did not compile
    · LayoutDrift            a pinned map or generated file disagrees with the C headers
    · MapFull                                                            (transient)
    · NetlinkRefused         rtnetlink answered with an errno
  - LabError                 a lab could not be deployed or taken down

Messages are one line: what, where, why, what next.
"""

from __future__ import annotations

from collections.abc import Iterable


class MeshnetError(Exception):
    """Base of all. `transient` tells a reconciler whether waiting can help."""

    transient: bool = False
    exit_code: int = 1


class UsageError(MeshnetError):
    """The command was called wrongly."""

    exit_code = 2


class ConfigError(MeshnetError):
    """The operator's file, flag or name is wrong."""

    exit_code = 2


class InvalidName(ConfigError):
    """A name breaks the rules of its kind."""

    def __init__(self, kind: str, name: str, rule: str) -> None:
        super().__init__(f"{kind} name {name!r} is invalid: {rule}")
        self.kind = kind
        self.name = name


class InvalidLabel(ConfigError):
    """A label is malformed, or in a prefix that meshnet keeps for itself."""


class InvalidPrefix(ConfigError):
    """A CIDR is malformed, of the wrong size, or collides."""


class ManifestRefused(ConfigError):
    """A manifest cannot be used. `faults` has one entry a field, each with its path."""

    def __init__(self, faults: Iterable[object]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


class ForeignKind(ManifestRefused):
    """A manifest of a kind that Kubernetes has and meshnet does not."""


class NotFound(MeshnetError):
    """What was named does not exist."""

    exit_code = 4


class AlreadyExists(MeshnetError):
    """The name is taken."""


class Refused(MeshnetError):
    """A rule of the mesh forbids it; waiting does not help."""


class TokenRefused(Refused):
    """A join token is malformed, expired, used, or meant for somebody else."""


class PermissionRefused(Refused):
    """The caller may not do that."""

    exit_code = 6


class RegistryError(MeshnetError):
    """etcd refused, or what it holds cannot be used."""


class Unreachable(RegistryError):
    """etcd or a gateway does not answer. Another try may."""

    transient = True
    exit_code = 5
    own_etcd: bool = False
    """It is this cluster's etcd: it starts again when the CAs change, and by its supervisor."""


class Conflict(RegistryError):
    """Somebody else wrote the key first."""

    transient = True


class Compacted(RegistryError):
    """The revision asked for is gone: list again."""

    transient = True


class LeaseLost(RegistryError):
    """Our lease expired, so its keys are gone: put them again."""

    transient = True


class Denied(RegistryError):
    """etcd or a gateway answered, and the answer is no."""


class NotPermitted(Denied):
    """The key is not shown, or not to us. Other refusals may be of the moment: too many at once."""


class PoisonedKey(RegistryError):
    """A key whose value cannot be used. It is skipped; everything else goes on."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


class AllocationError(MeshnetError):
    """Nothing could be allocated."""


class PoolExhausted(AllocationError):
    """No free prefix, address or number is left."""


class AgentUnreachable(MeshnetError):
    """No agent answers on its socket."""

    exit_code = 5


class NotStarted(MeshnetError):
    """A command could not be run in an endpoint; the exit code says why, as a shell's does."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Timeout(MeshnetError):
    """What was waited for did not happen in time."""

    exit_code = 124


class CapabilityMissing(MeshnetError):
    """The kernel or a permission lacks something that cannot be done without."""

    exit_code = 6


class DatapathError(MeshnetError):
    """The kernel refused a program, a map entry or a netlink request."""


class VerifierRejected(DatapathError):
    """A BPF program did not load. `log` is the verifier's full text."""

    def __init__(self, program: str, summary: str, log: str) -> None:
        super().__init__(f"BPF program {program!r} was rejected: {summary}")
        self.program = program
        self.log = log


class CompileFailed(DatapathError):
    """The C did not compile. `output` is the compiler's full text."""

    def __init__(self, source: str, summary: str, output: str) -> None:
        super().__init__(f"bpf/{source} did not compile: {summary}")
        self.output = output


class LayoutDrift(DatapathError):
    """A pinned map or a generated file disagrees with the C headers."""


class MapFull(DatapathError):
    """A BPF map has no room. Entries that leave make room, so it is transient."""

    transient = True

    def __init__(self, map_name: str, *, capacity: int) -> None:
        super().__init__(f"BPF map {map_name!r} is full ({capacity} entries)")
        self.map_name = map_name
        self.capacity = capacity


class NetlinkRefused(DatapathError):
    """rtnetlink answered with an errno."""

    def __init__(self, request: str, errno: int, reason: str) -> None:
        super().__init__(f"{request}: {reason}")
        self.errno = errno


class LabError(MeshnetError):
    """A lab could not be deployed or taken down."""
