// The primary's pipeline at its ports: as transcripts (test/transcripts/primary-*.txt), and whatever happens.

import { expect } from 'chai';
import fc from 'fast-check';
import type { LifeState } from '../../src/primary/life-state.js';
import { transcripts } from '../support/transcripts.js';
import { playPrimary } from './virtual-primary.js';

const link = fc.constantFrom('A', 'A', 'A', 'B', 'C');
const command = fc.oneof(
  { arbitrary: link.map((name) => `link ${name}`), weight: 2 },
  { arbitrary: link.map((name) => `${name} acknowledges next`), weight: 10 },
  fc.tuple(link, fc.integer({ min: 0, max: 4 })).map(([name, epoch]) => `${name} acknowledges ${epoch}`),
  {
    arbitrary: fc
      .tuple(link, fc.constantFrom('heard', 'lost LINK_CLOSED', 'bye shutdown'))
      .map(([name, what]) => `${name} ${what}`),
    weight: 2,
  },
  { arbitrary: fc.constantFrom('saver captures', 'wait 60'), weight: 12 },
  fc.constantFrom(
    'saver suspends',
    'saver copies',
    'saver resumes',
    'saver finds nobody',
    'saver fails FAILED',
  ),
  fc.constantFrom(
    'saver lets go',
    'wait 0',
    'wait 10',
    'stall 700',
    'request',
    'pressure on',
    'pressure off',
  ),
  fc.constant('domain shuts down'),
  { arbitrary: fc.constantFrom('domain crashes: x', 'stop'), weight: 1 },
  fc
    .tuple(link, fc.constantFrom('confirmed', 'unanswered'))
    .map(([name, answer]) => `goodbye ${name} ${answer}`),
);

/** Of the register; a standby that comes back with what is still good. */
const answer = fc.oneof(
  { arbitrary: fc.constant('register answers won'), weight: 6 },
  { arbitrary: link.map((name) => `link ${name} continuous`), weight: 2 },
  { arbitrary: fc.constant('register answers lost'), weight: 1 },
  { arbitrary: fc.constant('hand over'), weight: 2 },
  { arbitrary: link.map((name) => `${name} lost FENCED`), weight: 1 },
);

describe('primary/primary', () => {
  for (const what of [
    'way-up',
    'triggers',
    'acknowledgements',
    'links',
    'ends',
    'stop',
    'shared-disks',
    'register',
    'switchover',
  ]) {
    describe(what, () => transcripts(`primary-${what}.txt`, (commands) => playPrimary(commands)));
  }

  /** Plays what happens after these commands, and checks it; returns how often it came to what must be seen. */
  function playWithRegister(
    beginning: readonly string[],
    happenings: readonly string[],
    windowEpochs: number,
    open: Reached,
    seen: Seen,
  ) {
    const commands = [...beginning, ...happenings];
    const [settings = ''] = commands;
    const states: LifeState[] = [];
    const lines = playPrimary(commands, (state) => states.push(state));
    const found = new Found(settings.includes('register alone') ? 'alone' : 'paired');
    for (const [index, given] of commands.entries()) {
      const state = states[index];
      if (state) found.check(given, lines[index] ?? [], state, open);
    }
    check(commands, lines, states, windowEpochs, seen, (index) => found.mayPass[index] === true);
  }
  const how = fc.constantFrom('', ', a slow saver', ', shared disks');

  it('whatever happens, output leaves by an acknowledgement, or while the register says alone and nothing captured waits', () => {
    const seen = { releases: 0, passes: 0, ends: 0 };
    const open = { passing: 0, held: 0, fenced: 0, handedOver: 0, handedBack: 0, waiting: 0 };
    fc.assert(
      fc.property(
        fc.array(fc.oneof({ arbitrary: command, weight: 3 }, { arbitrary: answer, weight: 1 }), {
          ...{ minLength: 8, maxLength: 60 },
        }),
        fc.constantFrom('alone', 'paired'),
        fc.integer({ min: 1, max: 3 }),
        how,
        (happenings, register, windowEpochs, otherwise) => {
          const settings = `with the register ${register}, window ${windowEpochs}${otherwise}`;
          const beginning = [settings, 'start', 'link A', 'A heard', 'saver captures'];
          playWithRegister(beginning, happenings, windowEpochs, open, seen);
        },
      ),
      { numRuns: 2000 },
    );
    const { passing, held, fenced } = open;
    const all = { ...seen, passing, held, fenced };
    expect(Math.min(...Object.values(all)), JSON.stringify(all)).to.be.greaterThan(10);
  });

  it('… and handed over it stands still behind its last checkpoint, until the register says whose it is', () => {
    const seen = { releases: 0, passes: 0, ends: 0 };
    const open = { passing: 0, held: 0, fenced: 0, handedOver: 0, handedBack: 0, waiting: 0 };
    const way = [
      'hand over',
      'saver captures',
      'A acknowledges 1',
      'saver captures',
      'A acknowledges 2',
      'saver captures',
      'A acknowledges 3',
      'saver suspends',
      'saver captures',
      'A acknowledges 4',
    ];
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: way.length }),
        fc.array(
          fc.oneof(
            { arbitrary: command, weight: 3 },
            { arbitrary: answer, weight: 2 },
            { arbitrary: fc.constantFrom('A lost LINK_CLOSED', 'wait 2500', 'hand over'), weight: 1 },
          ),
          { maxLength: 20 },
        ),
        how,
        (steps, happenings, otherwise) => {
          const beginning = [
            `with the register alone, window 2${otherwise}`,
            ...['start', 'link A', 'A heard', 'saver captures', 'A acknowledges 0', 'register answers won'],
            ...way.slice(0, steps),
          ];
          playWithRegister(beginning, happenings, 2, open, seen);
        },
      ),
      { numRuns: 2000 },
    );
    const { handedOver, handedBack, waiting } = open;
    const all = { handedOver, handedBack, waiting };
    expect(Math.min(...Object.values(all)), JSON.stringify(all)).to.be.greaterThan(10);
  });
});

type Reached = Record<'passing' | 'held' | 'fenced' | 'handedOver' | 'handedBack' | 'waiting', number>;

/** The register as it is, the write that is on its way, and the gate, as the lines tell of them. */
class Found {
  /** By the index of each command. */
  readonly mayPass: boolean[] = [];
  #register: string;
  #writing: string | null = null;
  #open = false;
  /** The epoch that is the last of its stream, once that is captured; the domain stands still behind it. */
  #lastEpoch: number | null = null;
  #streamUuid: string | undefined;
  #still = false;
  readonly #settled = new Set<string>();

  constructor(register: string) {
    this.#register = register;
  }

  check(given: string, lines: readonly string[], state: LifeState, seen: Reached): void {
    if (given === 'register answers won') this.#register = this.#writing ?? this.#register;
    else if (given === 'register answers lost' && this.#writing !== null) this.#register = 'theirs';
    if (given.startsWith('register answers')) this.#writing = null;
    for (const line of lines) {
      const [, mode] = /^register: write (\w+)/.exec(line) ?? [];
      if (mode !== undefined) {
        expect(this.#writing, 'one write at a time').to.equal(null);
        this.#writing = mode;
      }
      if (line === 'gate: pass') this.#open = true;
      else if (line === 'gate: hold' || line === 'gate: discard') this.#open = false;
    }
    const { role, stream, stopped, passing } = state;
    this.#checkHandOver(lines, state, seen);
    // The capture of the first epoch holds by itself.
    if (stream?.holding === true) this.#open = false;
    const alone = this.#register === 'alone' && this.#writing === null;
    this.mayPass.push(alone && stream?.holding !== true);
    if (stopped || role !== 'primary') {
      if (role === 'fenced') seen.fenced++;
      return;
    }
    expect(this.#register, 'lost, and it runs on').to.not.equal('theirs');
    if (passing) {
      expect(alone && state.running, 'passes').to.equal(true);
      expect(stream?.captured ?? -1, 'something captured waits').to.equal(-1);
    }
    expect(this.#open, 'the gate is as is known of it').to.equal(passing);
    seen[passing ? 'passing' : 'held']++;
  }

  /** Behind its last checkpoint the domain stands still as long as it may be theirs; each request has one outcome. */
  #checkHandOver(lines: readonly string[], { role, stream, lastStream }: LifeState, seen: Reached): void {
    for (const line of lines) {
      const [, last] = /capture (\d+), the last$/.exec(line) ?? [];
      const [, id, outcome] = /^hand-over (\d+): (\w+)/.exec(line) ?? [];
      if (this.#still) expect(line).to.not.match(/^saver .: capture|^domain: start/);
      if (last !== undefined) this.#lastEpoch = Number(last);
      if (line === 'domain: handed back') {
        if (this.#still) {
          expect([this.#register, this.#writing]).to.deep.equal(['alone', null]);
          seen.handedBack++;
        }
        this.#still = false;
      }
      if (line.endsWith('its output first')) expect(lastStream?.acknowledged).to.equal(this.#lastEpoch);
      if (id === undefined) continue;
      expect(this.#settled.has(id), line).to.equal(false);
      this.#settled.add(id);
      if (outcome === 'done') expect(role).to.equal('fenced');
      else if (outcome === 'NOT_SWITCHED' && role === 'primary') expect(this.#still, line).to.equal(false);
      if (outcome === 'done' && this.#still) seen.handedOver++;
    }
    const { streamUuid } = stream ?? lastStream ?? {};
    if (streamUuid !== this.#streamUuid) this.#lastEpoch = null;
    this.#streamUuid = streamUuid;
    if (this.#lastEpoch !== null && stream?.captured === this.#lastEpoch) this.#still = true;
    if (this.#still && stream === null && role === 'primary') seen.waiting++;
  }
}

interface Seen {
  releases: number;
  passes: number;
  ends: number;
}

/** What must be true of each line, by what had been before its command and is after it. */
function check(
  commands: readonly string[],
  lines: readonly (readonly string[])[],
  states: readonly LifeState[],
  windowEpochs: number,
  seen: Seen,
  mayPass: (index: number) => boolean,
): void {
  let silent = false;
  let finished = 0;
  let letGo = 0;
  /** Epochs up to this one were captured before a stop of the process. */
  let staleEpoch = -1;
  /** The saver that has the domain. */
  let saving: string | null = null;
  let closing = false;
  const slow = commands[0]?.includes('slow') === true;
  for (const [index, given] of commands.entries()) {
    const before = states[index - 1];
    const after = states[index];
    if (!before || !after) continue;
    if (given === 'saver lets go' && closing) saving = null;
    if (given.startsWith('stall') && before.stream) staleEpoch = before.stream.captured;
    if (before.stream?.streamUuid !== after.stream?.streamUuid) staleEpoch = -1;
    const uuid = before.stream?.streamUuid ?? '';
    for (const line of lines[index] ?? []) {
      const [, saver = '', epoch] = /^saver (.): capture (\d+)$/.exec(line) ?? [];
      const [, released] = /^gate: release (\d+)$/.exec(line) ?? [];
      // After the discard nothing is let out any more.
      if (released !== undefined || line === 'gate: pass') expect(silent, line).to.equal(false);
      if (line === 'gate: discard') silent = true;
      if (released !== undefined) {
        seen.releases++;
        const { stream } = before;
        expect([`${uuid} acknowledges next`, `${uuid} acknowledges ${released}`]).to.include(given);
        expect(Number(released)).to.equal((stream?.acknowledged ?? NaN) + 1);
        expect(Number(released)).to.be.at.most(stream?.captured ?? NaN);
        expect(Number(released)).to.be.greaterThan(staleEpoch);
      }
      if (line === 'gate: pass') {
        seen.passes++;
        // Held: the gate passes only when END, the epoch after the last, is acknowledged.
        const { stream } = before;
        if (!mayPass(index)) {
          expect(before.ending).to.equal(true);
          const end = (stream?.captured ?? NaN) + 1;
          expect([`${uuid} acknowledges next`, `${uuid} acknowledges ${end}`]).to.include(given);
          expect(stream?.acknowledged).to.equal(stream?.captured);
        }
      }
      if (epoch !== undefined) {
        // One stream after another, and within the window.
        if (Number(epoch) === 0) expect(saving).to.equal(null);
        else expect(Number(epoch) - 1 - (after.stream?.acknowledged ?? NaN)).to.be.lessThan(windowEpochs);
        saving = saver;
        closing = false;
      }
      if (line === `saver ${saving ?? ''}: close`) {
        closing = true;
        if (!slow) saving = null;
      }
      if (line === 'report: finished') finished++;
      if (line.startsWith('domain: let go')) {
        letGo++;
        // Free only if no secondary can have a checkpoint that it may take over from.
        const heard = given === `goodbye ${before.leaving ?? ''} confirmed`;
        if (line.endsWith('free')) expect(heard || !before.exposed).to.equal(true);
        else if (before.role !== 'ended' && !line.endsWith('its output first')) expect(silent).to.equal(true);
      }
    }
    if (after.role === 'ended') seen.ends++;
    if (after.role === 'fenced' || after.role === 'failed') expect(after.stream).to.equal(null);
  }
  expect([finished, letGo].every((count) => count <= 1)).to.equal(true);
}
