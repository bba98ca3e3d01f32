"""One module per resource, each with `routes(desk: Desk) -> APIRouter`."""
