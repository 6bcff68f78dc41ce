"""Time zone codes of user settings as IANA zones.

Source for the zones: Unicode CLDR, windowsZones (territory 001). Assumed: ``timezonecode`` follows Microsoft's time
zone index values, with 92 for UTC; the codes of later zones are not listed publicly and are not known here.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_ZONES = """
0 Etc/GMT+12 | 1 Pacific/Apia | 2 Pacific/Honolulu | 3 America/Anchorage | 4 America/Los_Angeles | 10 America/Denver
13 America/Mazatlan | 15 America/Phoenix | 20 America/Chicago | 25 America/Regina | 29 America/Mexico_City
33 America/Guatemala | 35 America/New_York | 40 America/Indianapolis | 45 America/Bogota | 50 America/Halifax
55 America/La_Paz | 56 America/Santiago | 60 America/St_Johns | 65 America/Sao_Paulo | 70 America/Cayenne
73 America/Godthab | 75 Etc/GMT+2 | 80 Atlantic/Azores | 83 Atlantic/Cape_Verde | 85 Europe/London
90 Atlantic/Reykjavik | 92 UTC | 95 Europe/Budapest | 100 Europe/Warsaw | 105 Europe/Paris | 110 Europe/Berlin
113 Africa/Lagos | 115 Europe/Chisinau | 120 Africa/Cairo | 125 Europe/Kiev | 130 Europe/Bucharest
135 Asia/Jerusalem | 140 Africa/Johannesburg | 145 Europe/Moscow | 150 Asia/Riyadh | 155 Africa/Nairobi
158 Asia/Baghdad | 160 Asia/Tehran | 165 Asia/Dubai | 170 Asia/Yerevan | 175 Asia/Kabul | 180 Asia/Yekaterinburg
185 Asia/Tashkent | 190 Asia/Calcutta | 193 Asia/Katmandu | 195 Asia/Almaty | 200 Asia/Colombo | 201 Asia/Novosibirsk
203 Asia/Rangoon | 205 Asia/Bangkok | 207 Asia/Krasnoyarsk | 210 Asia/Shanghai | 215 Asia/Singapore | 220 Asia/Taipei
225 Australia/Perth | 227 Asia/Irkutsk | 230 Asia/Seoul | 235 Asia/Tokyo | 240 Asia/Yakutsk | 245 Australia/Darwin
250 Australia/Adelaide | 255 Australia/Sydney | 260 Australia/Brisbane | 265 Australia/Hobart | 270 Asia/Vladivostok
275 Pacific/Port_Moresby | 280 Pacific/Guadalcanal | 285 Pacific/Fiji | 290 Pacific/Auckland | 300 Pacific/Tongatapu
"""
ZONE_NAMES: Mapping[int, str] = {
    int(code): name for code, name in (entry.split() for entry in _ZONES.replace("\n", "|").split("|") if entry.strip())
}
"""IANA zone names by time zone code."""


def zone_of(code: object) -> ZoneInfo | None:
    """Return the zone of a time zone code; None when the code is not known or the system lacks the zone."""
    name = ZONE_NAMES.get(code) if isinstance(code, int) else None
    try:
        return None if name is None else ZoneInfo(name)
    except ZoneInfoNotFoundError:
        return None
