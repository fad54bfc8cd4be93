"""Five domains over a bad bus, with crashes, as a machine for hypothesis: in the end all hold one mapping."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from followme.domain import NodeKind
from followme.federation.messages import Accepted, Answer, Attach, Denied, Flipped, Released
from followme.federation.nouns import Card, Mapping
from followme.federation.outputs import Attached, IsDenied, IsReady
from tests.federations import NETWORKS, Letter, World, card

CARDS = [card("u", "a1", 10), card("m", "a2", 10, NodeKind.MACHINE), card("w", "b1", 10), card("x", "g1", 10)]
USERS = [one for one in CARDS if one.kind is NodeKind.USER]
MACHINE = CARDS[1]
NAMES = [name for networks in NETWORKS.values() for name in networks]

domains = st.sampled_from(list(NETWORKS))
networks = st.sampled_from(NAMES)
nodes = st.sampled_from(CARDS)
picks = st.integers(0, 1 << 16)


class Federation(RuleBasedStateMachine):
    """``went`` is each node's list of accepted moves: (who, what, network)."""

    @initialize()
    def begin(self) -> None:
        self.world = World(CARDS)
        self.versions: dict[tuple[str, IPv4Address], int] = {}
        self.made: dict[tuple[IPv4Address, int], bytes] = {}
        self.went: dict[IPv4Address, list[tuple[str, object, str]]] = {one.identifier: [] for one in CARDS}
        self.claims: set[tuple[str, int]] = set()
        self.migration = 0
        self.conducted: dict[str, tuple[str, str]] = {}
        self.phase: dict[str, str] = {}
        self.flipped: set[str] = set()
        self.seen = 0

    # What happens

    @rule(one=st.sampled_from(USERS), network=networks)
    def shows_up(self, one: Card, network: str) -> None:
        owner = self.world.owner(network)
        self.world.feds[owner].attach(one.identifier, one.mac, network)
        self.world.pump(owner)
        self.look()

    @rule(network=networks)
    def carry(self, network: str) -> None:
        for name, fed in self.world.feds.items():
            view = fed.view(MACHINE.identifier)
            here = MACHINE.home if view is None or view.mapping is None else view.mapping.here.network
            if here in NETWORKS[name]:
                self.migration += 1
                migration = f"m{self.migration}"
                self.conducted[migration] = name, network
                self.phase[migration] = "asked"
                fed.prepare(MACHINE.identifier, network, migration)
                self.world.pump(name)
                self.look()
                return

    @rule(pick=picks, ends=st.booleans())
    @precondition(lambda self: any(phase in ("ready", "flipped") for phase in self.phase.values()))
    def goes_on(self, pick: int, ends: bool) -> None:
        some = [migration for migration, phase in self.phase.items() if phase in ("ready", "flipped")]
        self.advance(some[pick % len(some)], not ends or pick % 4 > 0)

    @rule(pick=picks)
    @precondition(lambda self: "asked" in self.phase.values())
    def loses_patience(self, pick: int) -> None:
        some = [migration for migration, phase in self.phase.items() if phase == "asked"]
        self.advance(some[pick % len(some)], False)

    def advance(self, migration: str, well: bool) -> None:
        name, _ = self.conducted[migration]
        fed = self.world.feds[name]
        if not well:
            self.phase[migration] = "over"
            fed.aborted(MACHINE.identifier, migration)
        elif self.phase[migration] == "ready":
            self.phase[migration] = "flipped"
            fed.flipped(MACHINE.identifier, migration)
        else:
            self.phase[migration] = "over"
            fed.released(MACHINE.identifier, migration)
        self.world.pump(name)
        self.look()

    @rule(one=nodes, network=networks)
    def speaks(self, one: Card, network: str) -> None:
        for name, fed in self.world.feds.items():
            view = fed.view(one.identifier)
            if view is not None and view.mapping is not None and view.mapping.here.network in NETWORKS[name]:
                fed.speaks(one.identifier, network)
                self.world.pump(name)

    @rule(one=nodes, network=networks)
    def is_spoken_to(self, one: Card, network: str) -> None:
        owner = self.world.owner(one.home)
        self.world.feds[owner].unaware(one.identifier, network)
        self.world.pump(owner)

    @rule(one=nodes)
    def falls_quiet(self, one: Card) -> None:
        for name, fed in self.world.feds.items():
            view = fed.view(one.identifier)
            for place in view.mapping.old if view is not None and view.mapping is not None else ():
                if place.network in NETWORKS[name]:
                    fed.quiet(one.identifier, place)
            self.world.pump(name)

    # What the bus does

    @rule(some=st.lists(picks, min_size=1, max_size=20))
    @precondition(lambda self: self.world.letters)
    def arrive(self, some: list[int]) -> None:
        for pick in some:
            if self.world.letters:
                self.deliver(self.world.letters[pick % len(self.world.letters)])

    @rule(pick=picks)
    @precondition(lambda self: self.world.letters)
    def is_lost(self, pick: int) -> None:
        self.world.lose(self.world.letters[pick % len(self.world.letters)])

    @rule(pick=picks)
    @precondition(lambda self: self.world.letters)
    def is_doubled(self, pick: int) -> None:
        one = self.world.letters[pick % len(self.world.letters)]
        self.world.letters.append(Letter(one.sender, one.to, one.order, one.back, one.answer))

    @rule(seconds=st.sampled_from([0.1, 0.3, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)
        self.look()

    @rule(domain=domains)
    def crash(self, domain: str) -> None:
        self.world.start(domain)
        self.look()

    @rule(domain=domains)
    def crash_between_write_and_send(self, domain: str) -> None:
        self.world.dying.add(domain)

    def deliver(self, letter: Letter) -> None:
        self.noted(letter)
        self.look()

    def ended(self, letter: Letter) -> bool:
        """Whether home knows the order's migration as over: it accepts it, and does nothing."""
        one = next((one for one in CARDS if one.identifier == letter.order.identifier), None)
        if one is None or not isinstance(letter.order, (Flipped, Released)):
            return False
        record = self.world.feds[self.world.owner(one.home)]._home.records.get(int(one.identifier))
        return record is not None and record.done == letter.order.migration

    def note(self, letter: Letter, answer: Answer) -> None:
        """What home has accepted."""
        order = letter.order
        if not isinstance(answer, Accepted):
            return
        went = self.went.get(order.identifier, [])
        if isinstance(order, Attach) and (letter.sender, order.claim) not in self.claims:
            self.claims.add((letter.sender, order.claim))
            self.superseded(order.identifier)
            went.append((letter.sender, f"attach {order.claim}", order.network))
        elif isinstance(order, Denied):
            went[:] = [one for one in went if (one[0], one[1]) != (letter.to, order.migration)]
        elif isinstance(order, (Flipped, Released)) and order.migration not in self.flipped:
            self.flipped.add(order.migration)
            went.append((letter.sender, order.migration, self.conducted[order.migration][1]))
        elif type(order).__name__ == "Aborted":
            self.flipped.add(getattr(order, "migration", ""))
            went[:] = [one for one in went if one[1] != getattr(order, "migration", "")]

    def superseded(self, identifier: IPv4Address) -> None:
        went = self.went[identifier]
        mapping = self.home_mapping(identifier)
        if went and mapping.here.network != went[-1][2]:
            went.pop()

    def home_mapping(self, identifier: IPv4Address) -> Mapping:
        one = next(one for one in CARDS if one.identifier == identifier)
        mapping = self.world.feds[self.world.owner(one.home)]._mapping(int(identifier))
        assert mapping is not None
        return mapping

    def look(self) -> None:
        for domain, effect in self.world.effects[self.seen :]:
            if isinstance(effect, IsReady) and self.phase[effect.migration] == "asked":
                self.phase[effect.migration] = "ready"
            elif isinstance(effect, IsDenied):
                assert self.phase[effect.migration] in ("asked", "over"), "what was ready is not denied"
                self.phase[effect.migration] = "over"
            elif isinstance(effect, Attached):
                assert self.world.owner(effect.network) == domain
        self.seen = len(self.world.effects)

    # What must hold at all times

    @invariant()
    def no_locator_is_given_twice(self) -> None:
        given: dict[IPv4Address, IPv4Address] = {}
        for fed in self.world.feds.values():
            for one in CARDS:
                view = fed.view(one.identifier)
                for place in view.reserved if view is not None else ():
                    assert given.setdefault(place.locator, one.identifier) == one.identifier
        for one in CARDS:
            for mapping in self.views(one):
                for place in mapping.places:
                    assert given.get(place.locator) == one.identifier or place.locator == one.identifier

    @invariant()
    def nobody_sends_to_where_its_owner_has_no_rules_any_more(self) -> None:
        for one in CARDS:
            for name, fed in self.world.feds.items():
                found = fed.view(one.identifier)
                if found is None or found.mapping is None or self.deaf(name, one):
                    continue
                mapping = found.mapping
                here = mapping.here
                view = self.world.feds[self.world.owner(here.network)].view(one.identifier)
                owns = view.mapping if view is not None else None
                if here.locator != one.identifier and owns is not None and owns.version >= mapping.version:
                    assert here in owns.places

    @invariant()
    def whom_the_node_may_speak_to_knows_it_by_its_identifier(self) -> None:
        for name, fed in self.world.feds.items():
            for one in CARDS:
                view = fed.view(one.identifier)
                if view is None or view.mapping is None or view.mapping.here.network not in NETWORKS[name]:
                    continue
                if view.mapping.here.locator == one.identifier:
                    continue  # at home it speaks as itself
                if self.deaf(name, one):
                    continue  # it is elsewhere, and has not been here for long
                for network in view.told - view.telling - {one.home}:
                    owner = self.world.feds[self.world.owner(network)]
                    record = owner._held.records.peek(int(one.identifier))
                    if record is not None and network in record.unsure - record.networks:
                        continue  # home could not be reached, and is still asked
                    peer = owner.view(one.identifier)
                    assert peer is not None
                    assert peer.mapping is not None
                    assert network in peer.told
                    assert view.mapping.here in peer.mapping.places

    def deaf(self, name: str, one: Card) -> bool:
        return False

    def views(self, one: Card) -> list[Mapping]:
        views = [fed.view(one.identifier) for fed in self.world.feds.values()]
        return [view.mapping for view in views if view is not None and view.mapping is not None]

    @invariant()
    def versions_never_fall_and_mean_one_thing(self) -> None:
        for name, fed in self.world.feds.items():
            for one in CARDS:
                view = fed.view(one.identifier)
                if view is None or view.mapping is None:
                    continue
                mapping = view.mapping
                assert mapping.version >= self.versions.get((name, one.identifier), 0)
                self.versions[name, one.identifier] = mapping.version
                made = self.made.setdefault((one.identifier, mapping.version), mapping.canonical())
                assert made == mapping.canonical()

    # What must hold in the end

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.dying.clear()
        self.quiet()
        while open_ones := [name for name, phase in self.phase.items() if phase in ("ready", "flipped", "asked")]:
            self.advance(open_ones[0], self.phase[open_ones[0]] != "asked")
            self.quiet()
        for one in CARDS:
            self.check(one)
        self.all_go_home()

    def quiet(self) -> None:
        original = self.world.deliver
        self.world.deliver = self.noted  # type: ignore[method-assign]
        self.world.settle()
        self.world.deliver = original  # type: ignore[method-assign]
        self.look()

    def noted(self, letter: Letter) -> Answer | None:
        ended = self.ended(letter)
        answer = World.deliver(self.world, letter)
        if answer is not None and not ended:
            self.note(letter, answer)
        return answer

    def check(self, one: Card) -> None:
        mapping = self.home_mapping(one.identifier)
        went = self.went[one.identifier]
        assert mapping.here.network == (went[-1][2] if went else one.home)
        assert mapping.arriving is None
        assert mapping.leaving is None
        assert mapping.old == ()
        holders = {self.world.owner(mapping.here.network)} if not mapping.settled_home else set()
        for name, fed in self.world.feds.items():
            view = fed.view(one.identifier)
            if mapping.settled_home:
                assert view is None
            elif view is not None:
                assert view.mapping == mapping
                listed = {mapping.here} if name in holders else set()
                assert {*view.reserved} == listed - {place for place in listed if place.locator == one.identifier}
        home = self.world.feds[self.world.owner(one.home)].view(one.identifier)
        for network in home.told - {one.home} if home is not None else ():
            peer = self.world.feds[self.world.owner(network)].view(one.identifier)
            assert peer is not None
            assert network in peer.told, "home believes that it knows"
        for name in holders:
            assert self.world.feds[name].view(one.identifier) is not None

    def all_go_home(self) -> None:
        for one in CARDS:
            mapping = self.home_mapping(one.identifier)
            home = self.world.owner(one.home)
            if mapping.here.network == one.home:
                continue
            if one.kind is NodeKind.USER:
                self.world.feds[home].attach(one.identifier, one.mac, one.home)
                self.world.pump(home)
            else:
                self.carry(one.home)
                for _ in range(3):
                    self.quiet()
                    last = f"m{self.migration}"
                    if self.phase[last] != "over":
                        self.advance(last, True)
            self.quiet()
        for one in CARDS:
            assert self.home_mapping(one.identifier).settled_home
        for name, facts in self.world.facts.items():
            left = [key for key in facts if key[0] not in "tnc"]
            assert left == [], name
        assert not self.world.letters
