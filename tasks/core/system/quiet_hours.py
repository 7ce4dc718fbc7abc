"""Hours of the day in which the machine is somebody else's, such as "08:00-18:00" or
"22:00-06:00"."""

from datetime import datetime, time, timedelta

PATTERN = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"


def quiet_end(hours: str | None, now: datetime) -> datetime | None:
    """When the quiet hours end that `now` is in; None outside of them.

    Args:
        hours: As `PATTERN` has it, in local time; None: there are none.
        now: Local time.
    """
    if hours is None:
        return None
    begin, end = (time.fromisoformat(part) for part in hours.split("-"))
    for day in (now.date() - timedelta(days=1), now.date()):
        start = datetime.combine(day, begin)
        stop = datetime.combine(day if begin < end else day + timedelta(days=1), end)
        if start <= now < stop:
            return stop
    return None


def quiet_now(hours: str | None) -> datetime | None:
    """When the quiet hours end that it is now; None outside of them."""
    return quiet_end(hours, datetime.now()) if hours else None
