"""`headstart class lti`: learning platforms that open the lesson for their courses (LTI 1.3)."""

from contextlib import closing

import click

from headstart.cli.terminal import json_option, print_json, table, to_stderr


@click.group("lti")
def command() -> None:
    """Let Moodle, Canvas or another platform open the lesson: LTI 1.3 with names and marks.

    \b
    headstart class lti add --issuer https://campus.example --client-id ID --deployment 1 \\
        --login https://… --token https://… --keys https://… --tool https://lesson.example
    headstart class lti list
    headstart class lti remove 3f2a91c0
    headstart class lti new-key
    """


@command.command()
@click.option("--issuer", required=True, metavar="URL", help="What the platform calls itself.")
@click.option("--client-id", required=True, metavar="ID", help="What the platform calls this tool.")
@click.option(
    "--deployment", "deployments", required=True, multiple=True, metavar="ID", help="May be repeated."
)
@click.option("--login", required=True, metavar="URL", help="The platform's authentication request URL.")
@click.option("--token", required=True, metavar="URL", help="The platform's access token URL.")
@click.option("--keys", required=True, metavar="URL", help="The platform's public keyset URL.")
@click.option("--tool", required=True, metavar="URL", help="This server as browsers know it, by HTTPS.")
@json_option
def add(
    issuer: str,
    client_id: str,
    deployments: tuple[str, ...],
    login: str,
    token: str,
    keys: str,
    tool: str,
    as_json: bool,
) -> None:
    """Register a platform, and print what it asks for in turn.

    \b
    headstart class lti add --issuer https://campus.example --client-id ID --deployment 1 \\
        --login https://campus.example/mod/lti/auth.php --token https://campus.example/mod/lti/token.php \\
        --keys https://campus.example/mod/lti/certs.php --tool https://lesson.example
    """
    from headstart.lesson.engine.lti import Platforms
    from headstart.lesson.engine.progress import Progress

    with closing(Progress.open()) as store:
        made = Platforms(store).add(
            issuer=issuer,
            client=client_id,
            deployments=deployments,
            login=login,
            token=token,
            keys=keys,
            tool=tool,
        )
    ours = {
        "tool URL": made.at("launch"),
        "initiate login URL": made.at("login"),
        "redirection URI": made.at("launch"),
        "public keyset URL": made.at("keys"),
    }
    if as_json:
        print_json({"id": made.id} | ours)
        return
    for name, address in ours.items():
        click.echo(f"{name}: {address}")
    to_stderr("give these to the platform; headstart class open serves them, behind a proxy with TLS")


@command.command("list")
@json_option
def list_platforms(as_json: bool) -> None:
    """List the platforms.

    \b
    headstart class lti list
    """
    from headstart.lesson.engine.lti import Platforms
    from headstart.lesson.engine.progress import Progress

    with closing(Progress.open()) as store:
        found = Platforms(store).all()
    rows = [[one.id, one.issuer, one.client, " ".join(one.deployments), one.tool] for one in found]
    header = ["id", "issuer", "client", "deployments", "tool"]
    if as_json:
        print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        click.echo(table(rows, header=header) if rows else "no platform yet")


@command.command()
@click.argument("identity", metavar="ID")
def remove(identity: str) -> None:
    """Forget a platform and which course was which class. The classes stay.

    \b
    headstart class lti remove 3f2a91c0
    """
    from headstart.errors import OptionError
    from headstart.lesson.engine.lti import Platforms
    from headstart.lesson.engine.progress import Progress

    with closing(Progress.open()) as store:
        platforms = Platforms(store)
        if platforms.get(identity) is None:
            raise OptionError(f"no platform {identity!r}; headstart class lti list shows them")
        platforms.remove(identity)
    to_stderr(f"{identity}: forgotten")


@command.command("new-key")
def new_key() -> None:
    """Make another key to sign with. The ones before stay published, so nothing under way is refused.

    \b
    headstart class lti new-key
    """
    from datetime import UTC, datetime

    from headstart.files import home_folder, make
    from headstart.lesson.engine.lti import ToolKeys

    ToolKeys(make(home_folder())).renew(datetime.now(UTC))
    to_stderr("a new key signs from now on")
