"""Quiet hours: times of day in which no stage starts, such as "08:00-18:00" or "22:00-06:00"."""

from datetime import datetime, time, timedelta

PATTERN = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"


def quiet_end(hours: str | None, now: datetime) -> datetime | None:
    """The end of the quiet hours that contain `now`; None outside of them.

    Args:
        hours: Local times in the form of `PATTERN`; None: no quiet hours.
        now: Local time.
    """
    if hours is None:
        return None
    begin, end = (time.fromisoformat(part) for part in hours.split("-"))
    # quiet hours over midnight may have begun yesterday
    for day in (now.date() - timedelta(days=1), now.date()):
        start = datetime.combine(day, begin)
        stop = datetime.combine(day if begin < end else day + timedelta(days=1), end)
        if start <= now < stop:
            return stop
    return None


def quiet_now(hours: str | None) -> datetime | None:
    """The end of the current quiet hours; None outside of them."""
    return quiet_end(hours, datetime.now()) if hours else None
