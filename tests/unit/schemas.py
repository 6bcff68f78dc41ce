"""A small schema for tests: the tables goals usually count, with the platform's types."""

from __future__ import annotations

from d365sync.core.schema import Column, ColumnType, DateBehavior, Schema, Table


def column(name: str, kind: str, *targets: str, precision: int | None = None) -> Column:
    """Make a column from a short type: ``datetime:DateOnly``, ``base`` for a base-currency money column."""
    base = kind == "base"
    name_of_type, _, behavior = ("money" if base else kind).partition(":")
    return Column(
        logical_name=name,
        type=ColumnType(name_of_type),
        date_behavior=DateBehavior(behavior) if behavior else None,
        precision=precision,
        targets=targets,
        is_base_currency=base,
    )


def table(name: str, entity_set: str, primary_name: str, *columns: Column, tracked: bool = True) -> Table:
    key = "activityid" if name == "phonecall" else f"{name}id"
    every = (
        Column(key, ColumnType.UNIQUEIDENTIFIER, is_primary_id=True),
        column(primary_name, "string"),
        column("modifiedon", "datetime:UserLocal"),
        column("versionnumber", "bigint"),
        *columns,
    )
    return Table(name, entity_set, key, primary_name, {one.logical_name: one for one in every}, change_tracking=tracked)


OWNED = (column("statecode", "state"), column("statuscode", "status"), column("ownerid", "owner", "systemuser", "team"))
SCHEMA = Schema.of(
    [
        table(
            "opportunity",
            "opportunities",
            "name",
            *OWNED,
            column("actualvalue", "money"),
            column("actualvalue_base", "base"),
            column("estimatedvalue", "money"),
            column("estimatedvalue_base", "base"),
            column("naked", "money"),
            column("actualclosedate", "datetime:DateOnly"),
            column("estimatedclosedate", "datetime:DateOnly"),
            column("signedat", "datetime:TimeZoneIndependent"),
            column("salesstage", "picklist"),
            column("score", "double"),
            column("parentaccountid", "lookup", "account"),
            column("transactioncurrencyid", "lookup", "transactioncurrency"),
        ),
        table(
            "opportunityproduct",
            "opportunityproducts",
            "productname",
            column("quantity", "decimal", precision=5),
            column("ownerid", "owner", "systemuser", "team"),
            column("opportunityid", "lookup", "opportunity"),
        ),
        table("phonecall", "phonecalls", "subject", *OWNED, column("actualend", "datetime:UserLocal")),
        table("account", "accounts", "name", *OWNED),
        table(
            "new_visit",
            "new_visits",
            "new_name",
            *OWNED,
            column("new_first", "lookup", "account"),
            column("new_second", "lookup", "account"),
            tracked=False,
        ),
    ]
)
