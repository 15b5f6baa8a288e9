"""Signing in and out, here or at an identity provider, and the first administrator's form."""

import hashlib
import hmac

from starlette.responses import Response

from stockpicker_dagster.console.door import sessions
from stockpicker_dagster.console.door.checks import Refused, cookie, same
from stockpicker_dagster.console.door.door import BACK_PATH, ELSEWHERE_PATH, FIRST_PATH
from stockpicker_dagster.console.door.identity_provider import LASTS, IdentityProvider
from stockpicker_dagster.console.views.desk import NotFound
from stockpicker_dagster.console.web import Asked, Page, page, to
from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.trading.people import directory, secrets
from stockpicker_dagster.trading.people.sign_in import SignInRefused, sign_in


def show_sign_in(asked: Asked) -> Response:
    """The form; a cookie of its own proves that the form was loaded from here."""
    if asked.visitor is not None:
        return to("/")
    return _form(asked, "")


def do_sign_in(asked: Asked) -> Response:
    """A new session for whoever gives a fitting name, password and, where turned on, code."""
    _check_loaded_here(asked)
    fields, now = asked.fields, asked.desk.now()
    try:
        proof = sign_in(
            asked.desk.database,
            fields.get("name", "").strip(),
            fields.get("password", ""),
            fields.get("code", "").strip() or None,
            asked.origin,
            now,
        )
    except SignInRefused as refusal:
        return _form(asked, str(refusal), 403)
    return _signed_in(asked, sessions.begin(asked.desk.database, proof, now))


def go_elsewhere(asked: Asked) -> Response:
    """Sends the browser to the provider. It changes nothing here, and a form's address could not leave this server."""
    provider = _provider(asked)
    if asked.visitor is not None:
        return to("/")
    try:
        address, entry = provider.begin(_back(asked), asked.desk.now())
    except Refused as refusal:
        return _form(asked, str(refusal), refusal.status)
    answer = to(address)
    # Lax: the provider sends the browser back, which comes from another site then.
    answer.set_cookie(
        _provider_cookie(asked),
        entry,
        httponly=True,
        samesite="lax",
        path=BACK_PATH,
        secure=_secure(asked),
        max_age=int(LASTS.total_seconds()),
    )
    return answer


def come_back(asked: Asked) -> Response:
    """A new session for the person of the directory whom the provider's answer proves; always on to the first page."""
    provider, now = _provider(asked), asked.desk.now()
    entry = cookie(asked.request.scope, _provider_cookie(asked))
    try:
        name = provider.finish(entry, asked.query, _back(asked), now)
        with asked.desk.database.connect() as connection:
            person = directory.require(connection, name, "viewer")
    except (Refused, directory.UnknownPerson, directory.NotAllowed) as refusal:
        sentence = str(refusal)
        if isinstance(refusal, directory.UnknownPerson):
            sentence = f"nobody here is called {name[:64]!r}; an administrator adds people under People"
        answer = _form(asked, sentence, 403)
    else:
        answer = _signed_in(asked, sessions.begin_vouched(asked.desk.database, person.name, now))
    answer.delete_cookie(_provider_cookie(asked), path=BACK_PATH)
    return answer


def sign_out(asked: Asked) -> Response:
    """Ends the session, whoever else has its cookie."""
    if asked.who.session is not None:
        sessions.end(asked.desk.database, asked.who.session, asked.desk.now())
    answer = to("/sign-in")
    answer.delete_cookie(asked.request.state.cookie, path="/")
    return answer


def show_first(asked: Asked) -> Response:
    """The first administrator's form; following the link uses nothing up."""
    token = asked.query.get("token", "")
    if not asked.services.first_person.opens(token, asked.desk.now()):
        raise Refused(403, "this link is used up, over or not of this start; start `make up` again for a new one")
    return page(asked, "first_person.html", "The first administrator", token=token, problem="", name="")


def do_first(asked: Asked) -> Response:
    """Adds the first administrator and signs them in; the link is used up by this alone."""
    link, now, fields = asked.services.first_person, asked.desk.now(), asked.fields
    token, name, password = fields.get("token", ""), fields.get("name", "").strip(), fields.get("password", "")
    if not link.use(token, now):
        raise Refused(403, "this link is used up, over or not of this start; start `make up` again for a new one")
    try:
        if password != fields.get("again", ""):
            raise InvalidInput("the two passwords are not the same")
        directory.add_person(asked.desk.database, name, "administrator", password, "first-person link", now)
    except StockPickerError as error:
        link.give_back(token)
        return page(
            asked,
            "first_person.html",
            "The first administrator",
            status=400,
            token=token,
            problem=str(error),
            name=name,
        )
    proof = sign_in(asked.desk.database, name, password, None, asked.origin, now)
    return _signed_in(asked, sessions.begin(asked.desk.database, proof, now))


def _signed_in(asked: Asked, secret: str) -> Response:
    answer = to("/")
    answer.set_cookie(
        asked.request.state.cookie,
        secret,
        httponly=True,
        samesite="lax",
        path="/",
        secure=_secure(asked),
        max_age=int(sessions.LONGEST.total_seconds()),
    )
    answer.delete_cookie(_entry_cookie(asked), path="/sign-in")
    return answer


def _form(asked: Asked, problem: str, status: int = 200) -> Response:
    entry = secrets.new_token()
    provider = asked.services.provider
    elsewhere = provider.settings.host if provider else ""
    answer = page(
        asked,
        "sign_in.html",
        "Sign in",
        status=status,
        problem=problem,
        entry=_entry_token(entry),
        elsewhere=elsewhere,
        elsewhere_path=ELSEWHERE_PATH,
    )
    answer.set_cookie(_entry_cookie(asked), entry, httponly=True, samesite="strict", path="/sign-in")
    return answer


def _provider(asked: Asked) -> IdentityProvider:
    if asked.services.provider is None:
        raise NotFound("nobody signs in elsewhere here; sign in with a password")
    return asked.services.provider


def _back(asked: Asked) -> str:
    """The address that the provider sends the browser back to; it has to be entered there."""
    return f"{asked.request.state.origin}{BACK_PATH}"


def _secure(asked: Asked) -> bool:
    return bool(asked.request.state.origin.startswith("https:"))


def _provider_cookie(asked: Asked) -> str:
    return f"{asked.request.state.cookie}-provider"


def _check_loaded_here(asked: Asked) -> None:
    """Signing somebody in from another page, into an account of an attacker's, is an attack as well."""
    entry = cookie(asked.request.scope, _entry_cookie(asked))
    if not entry or not same(asked.fields.get("entry", ""), _entry_token(entry)):
        raise Refused(403, "this form is too old, or cookies are off; load the page again")


def _entry_cookie(asked: Asked) -> str:
    return f"{asked.request.state.cookie}-entry"


def _entry_token(entry: str) -> str:
    return hmac.new(entry.encode(), b"stockpicker sign-in", hashlib.sha256).hexdigest()


PAGES = (
    Page("/sign-in", show_sign_in, role=None),
    Page("/sign-in", do_sign_in, role=None, method="POST"),
    Page(ELSEWHERE_PATH, go_elsewhere, role=None),
    Page(BACK_PATH, come_back, role=None),
    Page("/sign-out", sign_out, method="POST"),
    Page(FIRST_PATH, show_first, role=None),
    Page(FIRST_PATH, do_first, role=None, method="POST"),
)
