"""What the command palette offers: every key's action, and every layer of the run."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tensorscope.errors import TensorscopeError
from tui.messages import SiteChosen
from tui.screens.run import RunScreen

if TYPE_CHECKING:
    from textual.binding import ActiveBinding

    from tensorscope.events import Site


class Actions(Provider):
    """The actions of all keys that work on the screen below."""

    async def discover(self) -> Hits:
        """All of them."""
        for binding in self._active():
            yield DiscoveryHit(binding.binding.description, partial(self._run, binding), help=self._key(binding))

    async def search(self, query: str) -> Hits:
        """Those whose description matches."""
        matcher = self.matcher(query)
        for binding in self._active():
            description = binding.binding.description
            if (score := matcher.match(description)) > 0:
                yield Hit(score, matcher.highlight(description), partial(self._run, binding), help=self._key(binding))

    def _active(self) -> list[ActiveBinding]:
        found: dict[tuple[str, str], ActiveBinding] = {}
        for active in self.screen.active_bindings.values():
            if active.enabled and active.binding.description and not active.binding.system:
                found.setdefault((active.binding.description, active.binding.action), active)
        return list(found.values())

    def _key(self, binding: ActiveBinding) -> str:
        return f"key {self.app.get_key_display(binding.binding)}"

    async def _run(self, binding: ActiveBinding) -> None:
        await self.app.run_action(binding.binding.action, binding.node)


class Places(Provider):
    """Every tensor of the run on the screen."""

    async def startup(self) -> None:
        """Fetch the sites away from the event loop."""
        self._sites: list[Site] = []
        screen = self.screen
        if isinstance(screen, RunScreen):
            try:
                self._sites = [site for site in await asyncio.to_thread(screen.source.sites) if not site.gradient]
            except TensorscopeError:
                self._sites = []  # a run that cannot be read has no places to go to

    async def search(self, query: str) -> Hits:
        """Those whose name matches."""
        matcher = self.matcher(query)
        for site in self._sites:
            if (score := matcher.match(site)) > 0:
                yield Hit(score, matcher.highlight(site), partial(self._open, site), help="open this tensor")

    def _open(self, site: Site) -> None:
        self.screen.post_message(SiteChosen(site))
