"""What the tests of the admin API decide on: declared records, a time, and what a refusal names."""

from datetime import timedelta

from ledger.access.configured import Configured
from schemas.access import Budget, Key, Project, Team, moment
from schemas.errors import NexusError

SECOND = 1_000_000_000
NOON_NS = 1_790_000_000 * SECOND
NOON = moment(NOON_NS)
HOUR = timedelta(hours=1)
NOTHING = Configured({}, {}, {}, {}, {})
DECLARED = Configured(
    keys={"key_file": Key(id="key_file")},
    opens={},
    projects={"file": Project(id="file")},
    teams={"file": Team(id="file")},
    budgets={"team:file:day": Budget(scope="team", id="file", period="day", limit_nano=5)},
)


def refused(error: NexusError) -> tuple[str | None, str | None]:
    return error.info.code, error.info.param
