"""The emulator: the Dataverse Web API, imitated, for tests, demos and rehearsals.

It exists so that the real client, the real sign-in library and the real synchronisation can be run against
something that answers as Dataverse does, without an org. Four rooms: addresses (:mod:`.routes`), translate
(:mod:`.odata`, :mod:`.wire`, :mod:`.encode`), behave (:mod:`.store` and the rules per table), refuse
(:mod:`.refuse`). It shares only the core's schema, values and FetchXML reading with the product.
"""

from __future__ import annotations

from d365sync.emulator.emulator import Emulator
from d365sync.emulator.settings import ClosedGoals, EmulatorSettings
from d365sync.emulator.tokens import Credentials

__all__ = ["ClosedGoals", "Credentials", "Emulator", "EmulatorSettings"]
