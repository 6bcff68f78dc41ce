"""The files by which a service manager runs d365sync: a systemd unit with its user, or a WinSW configuration.

Source: systemd.service(5), systemd.exec(5), sysusers.d(5); WinSW, XML configuration file.

Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

CHECKSUM = re.compile(r"^(?:# |<!-- )d365sync sha256 ([0-9a-f]{64})(?: -->)?\n", re.MULTILINE)
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
STATE_FOLDER = "/var/lib"


@dataclass(frozen=True, slots=True)
class Instance:
    """One service: its ``name`` is that of the unit, its state folder and its user.

    ``program`` and ``config`` are absolute paths on the machine it is for. ``credentials`` are files that systemd hands
    to the service by name, ``encrypted`` says that they were made by ``systemd-creds encrypt``. ``dynamic_user`` has
    systemd make up the user; otherwise ``user`` (empty: ``name``) is a system user of its own.
    """

    name: str = "d365sync"
    program: str = "/opt/d365sync/bin/d365sync"
    config: str = "/etc/d365sync/d365sync.toml"
    credentials: Mapping[str, str] = field(default_factory=dict)
    encrypted: bool = False
    user: str = ""
    dynamic_user: bool = False
    account: str = r"NT AUTHORITY\LocalService"

    @property
    def state_folder(self) -> str:
        """Where its databases are, on Linux: the only folder it may write to."""
        return f"{STATE_FOLDER}/{self.name}"

    @property
    def runs_as(self) -> str:
        """The user it runs as, on Linux."""
        return self.user or self.name


UNIT = """\
# systemd unit of d365sync, written by `d365sync service install`. To change something: systemctl edit {name}
[Unit]
Description=d365sync: Dynamics 365 goals, recomputed and written back ({name})
Documentation=man:systemd.service(5)
Wants=network-online.target
After=network-online.target time-sync.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} --config {config} run
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=120
TimeoutStartSec=120
TimeoutStopSec=60
Restart=on-failure
RestartSec=30
# 2: the configuration is wrong, 4: a guard refuses, 6: the identity is refused. Trying again mends none of them.
RestartPreventExitStatus=2 4 6

{user}
StateDirectory={name}
StateDirectoryMode=0700
WorkingDirectory={state_folder}
UMask=0077
{credentials}
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateIPC=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
KeyringMode=private
DevicePolicy=closed
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
SYSUSERS = """\
# The user of {name}, for systemd-sysusers; written by `d365sync service install`.
u {user} - "d365sync" {state_folder}
"""
WINSW = """\
<!-- WinSW configuration of d365sync, written by `d365sync service install`. Keep it beside WinSW, of the same name. -->
<service>
  <id>{name}</id>
  <name>{display}</name>
  <description>Dynamics 365 goals, recomputed and written back.</description>
  <executable>{program}</executable>
  <arguments>--config "{config}" run</arguments>
  <startmode>Automatic</startmode>
  <delayedAutoStart>true</delayedAutoStart>
  <env name="PYTHONUTF8" value="1"/>
  <onfailure action="restart" delay="30 sec"/>
  <onfailure action="restart" delay="2 min"/>
  <onfailure action="restart" delay="10 min"/>
  <resetfailure>1 hour</resetfailure>
  <stoptimeout>60 sec</stoptimeout>
  <log mode="roll-by-size">
    <sizeThreshold>10240</sizeThreshold>
    <keepFiles>5</keepFiles>
  </log>
  <!-- WinSW 2 reads domain and user, WinSW 3 username. -->
  <serviceaccount>
    <domain>{domain}</domain>
    <user>{user}</user>
    <username>{account}</username>
  </serviceaccount>
</service>
"""


def unit_of(instance: Instance) -> str:
    """Return the systemd unit."""
    kind = "LoadCredentialEncrypted" if instance.encrypted else "LoadCredential"
    loaded = [f"{kind}={name}:{_specifiers(path)}" for name, path in sorted(instance.credentials.items())]
    user = "DynamicUser=yes" if instance.dynamic_user else f"User={instance.runs_as}\nGroup={instance.runs_as}"
    text = UNIT.format(
        name=instance.name,
        program=_word(instance.program),
        config=_word(instance.config),
        user=user,
        state_folder=instance.state_folder,
        credentials="".join(f"{line}\n" for line in loaded),
    )
    return signed(text, "# {}")


def sysusers_of(instance: Instance) -> str:
    """Return the file that makes the user."""
    text = SYSUSERS.format(name=instance.name, user=instance.runs_as, state_folder=instance.state_folder)
    return signed(text, "# {}")


def winsw_of(instance: Instance) -> str:
    """Return the WinSW configuration.

    WinSW sends Ctrl+C to stop and kills after ``stoptimeout``; it expands ``%NAME%`` itself.
    """
    name = instance.name
    domain, _, user = instance.account.rpartition("\\")
    text = WINSW.format(
        name=escape(name),
        display=escape("d365sync" if name == "d365sync" else f"d365sync ({name})"),
        program=escape(instance.program),
        config=escape(instance.config),
        account=escape(instance.account),
        domain=escape(domain or "."),
        user=escape(user),
    )
    return signed(text, "<!-- {} -->")


def signed(text: str, comment: str) -> str:
    """Return a file with a checksum of itself as a comment in its second line, by which changes are seen."""
    line = comment.format(f"d365sync sha256 {_digest(text)}")
    first, _, rest = text.partition("\n")
    return f"{first}\n{line}\n{rest}"


def is_untouched(text: str) -> bool:
    """Say whether a file is as it was written, by whatever version."""
    found = CHECKSUM.search(text)
    return found is not None and _digest(CHECKSUM.sub("", text, count=1)) == found[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _specifiers(path: str) -> str:
    """Write a path so that systemd takes every percent sign as it is."""
    return path.replace("%", "%%")


def _word(text: str) -> str:
    """Write one argument of a command line as systemd reads it back. Source: systemd.service(5), Command lines."""
    plain = _specifiers(text).replace("$", "$$")
    if PLAIN.fullmatch(plain):
        return plain
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


SHIPPED: Mapping[str, str] = {
    "d365sync.service": unit_of(Instance(credentials={"client_secret": "/etc/d365sync/credentials/client_secret"})),
    "d365sync.sysusers.conf": sysusers_of(Instance()),
    "d365sync.winsw.xml": winsw_of(
        Instance(program=r"C:\Program Files\d365sync\d365sync.exe", config=r"C:\ProgramData\d365sync\d365sync.toml")
    ),
}
"""The files that are shipped for reading, by their names."""
