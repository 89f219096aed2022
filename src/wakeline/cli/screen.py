"""Prints a session's changes for people; messages grow in place until they are whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from wakeline.cli.lines import Lines, shown
from wakeline.client import Change, EventAdded, LiveMessage, MessageChanged, SessionEvent, StateChanged, Superseded
from wakeline.client.live_view import Name
from wakeline.events import ATTEMPT_SUPERSEDED, RUN_CLOSED, SESSION_CLOSED, SESSION_SETTLED

_FRAME_SECONDS: Final = 0.1
_MOST_GROWING: Final = 5
_INDENT: Final = 7  # as wide as an offset
_REMEMBERED: Final = 200  # characters of a message that are printed again if it is taken back


@dataclass
class _Growing:
    """A message that is not whole yet, and its latest event."""

    message: LiveMessage
    event: SessionEvent[Any]


class Screen:
    """Prints the changes of a view.

    Args:
        console: The terminal, file or pipe.
        keyed: The view's keyed states.
        wanted: Returns whether a topic is to be shown.
    """

    def __init__(
        self, console: Console, keyed: Mapping[Name, SessionEvent[Any]], wanted: Callable[[str], bool]
    ) -> None:
        self._console = console
        self._keyed = keyed
        self._wanted = wanted
        self._lines = Lines()
        self._growing: dict[Name, _Growing] = {}
        self._seen: dict[Name, Text] = {}
        self._changed = asyncio.Event()
        # Without a thread of its own: it would read messages while this thread changes them.
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._region,
        )

    def show(self, change: Change[Any]) -> None:
        """Print a change, or let its message grow."""
        match change:
            case MessageChanged(message=message, event=event):
                self._grow(_Growing(message, event))
            case Superseded():
                self._take_back(change)
            case StateChanged(event=event):
                self._print(self._line(event))
            case EventAdded(event=event):
                if event.topic == RUN_CLOSED:
                    self._stop_growing(name for name, one in self._growing.items() if one.event.run == event.run)
                elif event.topic in (SESSION_SETTLED, SESSION_CLOSED):
                    self._stop_growing(self._growing)
                line = self._line(event)  # also if it is not shown: an end is shown with its distance to the start
                if self._wanted(event.topic):
                    self._print(line)

    def report(self, report: Text) -> None:
        """Print a report about the connection above the growing lines."""
        self._print(report)

    async def draw(self) -> None:
        """Keep the growing lines up to date, until it is cancelled."""
        while self._console.is_interactive:
            await self._changed.wait()
            self._changed.clear()
            if self._growing and not self._live.is_started:
                self._live.start(refresh=True)
                self._console.show_cursor(True)  # a hidden one would stay hidden after SIGTERM
            elif self._live.is_started:
                self._live.refresh()
            await asyncio.sleep(_FRAME_SECONDS)

    def end(self) -> None:
        """Print the messages that are not whole, and leave the terminal as it was."""
        self._stop_growing(self._growing)

    def _line(self, event: SessionEvent[Any]) -> Text:
        self._lines.width = self._width  # the terminal may have another width now
        return self._lines.line(event)

    @property
    def _width(self) -> int | None:
        return self._console.width if self._console.is_terminal else None

    def _grow(self, one: _Growing) -> None:
        name = (one.message.topic, one.message.id)
        self._growing.pop(name, None)  # the latest stands last
        self._growing[name] = one
        if one.message.complete:
            self._print_whole(name)
        else:
            self._changed.set()

    def _stop_growing(self, names: Iterable[Name]) -> None:
        for name in list(names):
            self._print_whole(name)

    def _print_whole(self, name: Name) -> None:
        one = self._growing.pop(name)
        head, value = self._lines.message(name, one.event, one.message.value, one_line=not self._console.is_terminal)
        mark = Text("" if one.message.complete else " (incomplete)", "dim")
        self._seen[name] = value[:_REMEMBERED]
        width = self._width
        if width is None or ("\n" not in value.plain and head.cell_len + value.cell_len + mark.cell_len <= width):
            self._print(Text.assemble(head, value, mark))
            return
        below = value.wrap(self._console, max(1, width - _INDENT))
        self._print(Text.assemble(head, mark), *(Text.assemble(" " * _INDENT, line) for line in below))

    def _take_back(self, change: Superseded) -> None:
        lines = [self._line(change.event)] if self._concerns(change) else []
        again: list[Name] = []
        for message in change.messages:
            name = (message.topic, message.id)
            if name in self._seen:
                lines.append(self._below("taken back", name, self._seen.pop(name)))
            if not message.counts:
                self._growing.pop(name, None)
            elif name not in self._growing:
                self._growing[name] = _Growing(message, change.event)
                again += [name] if message.complete else []
        for name in change.states:
            lines.append(self._below("taken back", name, Text()))
            if name in self._keyed:
                lines.append(self._below("counts again", name, self._lines.value(self._keyed[name])))
        self._print(*lines)
        self._stop_growing(again)

    def _concerns(self, change: Superseded) -> bool:
        """Return whether events that were shown are superseded."""
        topics = [ATTEMPT_SUPERSEDED, *(event.topic for event in change.events)]
        return bool(change.messages or change.states) or any(map(self._wanted, topics))

    def _below(self, label: str, name: Name, value: Text) -> Text:
        style = "strike dim" if label == "taken back" else ""
        named = Text.assemble(shown(" ".join(name)), " ", value, style=style)
        line = Text.assemble(" " * _INDENT, (f"{label}: ", "yellow"), named)
        if self._width is not None:
            line.truncate(self._width, overflow="ellipsis")
        return line

    def _region(self) -> Group:
        """Return the lines of the messages that grow."""
        height = max(1, min(_MOST_GROWING, self._console.height - 2))
        latest = list(self._growing.items())[-height:]
        lines = [self._growing_line(name, one) for name, one in latest]
        hidden = len(self._growing) - len(latest)
        if hidden:
            lines.insert(0, Text(f"{'':{_INDENT}}{hidden} more grow", "dim"))
        return Group(*lines or [Text()])

    def _growing_line(self, name: Name, one: _Growing) -> Text:
        head, value = self._lines.message(name, one.event, one.message.value, one_line=False)
        room = max(1, self._console.width - head.cell_len - 2)
        whole = value.plain.replace("\n", " ")
        end = whole[-room:]
        while cell_len(end) > room:
            end = end[1:]
        visible = self._seen[name] = Text(end if end == whole else f"…{end}")
        return Text.assemble(head, visible, ("▌", "dim"), no_wrap=True)

    def _print(self, *lines: Text) -> None:
        # One write: the growing lines are erased, the new lines printed and the growing lines drawn below them.
        with self._console:
            if self._live.is_started and not self._growing:
                self._live.stop()
            for line in lines:
                self._console.print(line)
            if self._live.is_started:
                self._live.refresh()
