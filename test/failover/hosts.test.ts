// Hosts that follow the register's rules, over a witness that loses requests and replies, or is late: at no time do two
// of them believe that they run the domain alone, nor does one run alone beside one that lets out what is acknowledged.

import { expect } from 'chai';
import fc from 'fast-check';
import {
  written,
  type Claim,
  type Register,
  type RegisterWitness,
  type RegisterWrite,
} from '../../src/failover/register.js';
import { settle, type Settled } from '../../src/failover/settle.js';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { LossyWitness, type Fate } from './lossy-witness.js';
import { alone, paired } from './support.js';

type Settle = (witness: RegisterWitness, write: RegisterWrite, signal: AbortSignal) => Promise<Settled>;

const truly: Settle = (witness, write, signal) =>
  settle(witness, 'web', write, { backoff: { firstMs: 0, maxMs: 0 }, signal });

/** What a lost reply must not be taken for. A no: the register is what it was. */
const mistaken =
  (won: boolean): Settle =>
  async (witness, write, signal) => {
    const { expected, claim, token } = write;
    const target = written(write);
    try {
      const outcome = await witness.compareAndSet('web', expected, claim, token, signal);
      return { won: outcome === 'won', register: target };
    } catch {
      return { won, register: won || expected === null ? target : expected };
    }
  };

type Step = 'boots' | 'links' | 'loses its link' | 'crashes' | 'is late';

interface World {
  /** The most that have believed at once that they are alone. */
  together: number;
  streams: number;
  readonly hosts: Host[];
}

/** One host and what it believes. It does one thing after another; a crash ends what it is at, and all it knows. */
class Host {
  role: 'idle' | 'alone' | 'pairing' | 'paired' | 'standby' = 'idle';
  /** As a standby: of which it holds a checkpoint. As an owner: that is acknowledged. */
  stream = '';
  peer: Host | null = null;
  register: Register | null = null;
  #doing: Promise<void> = Promise.resolve();
  #life = new AbortController();
  #writes = 0;

  constructor(
    readonly name: string,
    readonly witness: LossyWitness,
    readonly world: World,
    readonly settle: Settle,
  ) {}

  take(step: Step, other: Host): void {
    const { signal } = this.#life;
    if (step === 'crashes') {
      this.#life.abort();
      this.#life = new AbortController();
      Object.assign(this, { role: 'idle', stream: '', peer: null, register: null });
      this.#doing = Promise.resolve();
      return;
    }
    this.#doing = this.#doing
      .then(() => (signal.aborted ? undefined : this.#take(step, other, signal)))
      .catch(() => undefined); // the witness was not reached, or the host is dead
  }

  rest(): Promise<void> {
    return this.#doing;
  }

  async #take(step: Step, other: Host, signal: AbortSignal): Promise<void> {
    switch (step) {
      case 'boots':
        return this.#boot(signal);
      case 'links':
        return this.#link(other, signal);
      case 'loses its link':
        return this.role === 'standby' ? this.#takeOver(signal) : this.#goAlone(signal);
      case 'is late':
        return this.witness.arrive();
      case 'crashes':
        return;
    }
  }

  async #boot(signal: AbortSignal): Promise<void> {
    if (this.role !== 'idle') return;
    const register = await this.witness.read('web', signal);
    const mine =
      register === null ? this.name === 'one' : register.mode === 'alone' && register.owner === this.name;
    if (mine) await this.#claim(register, alone(this.name), signal);
  }

  async #link(other: Host, signal: AbortSignal): Promise<void> {
    if (this.role !== 'alone' || other.role !== 'idle' || other === this) return;
    // The first checkpoint: nothing unacknowledged leaves from here on.
    this.role = 'pairing';
    this.peer = other;
    this.stream = `s${this.world.streams++}`;
    Object.assign(other, { role: 'standby', stream: this.stream, peer: this });
    await this.#claim(this.register, paired(this.name, other.name, this.stream), signal);
  }

  async #goAlone(signal: AbortSignal): Promise<void> {
    if (this.role !== 'paired') return;
    await this.#claim(this.register, alone(this.name), signal);
  }

  async #takeOver(signal: AbortSignal): Promise<void> {
    const register = await this.witness.read('web', signal);
    const ours =
      register?.mode === 'paired' && register.standby === this.name && register.stream === this.stream;
    if (ours) await this.#claim(register, alone(this.name), signal);
    else this.#letGo();
  }

  async #claim(expected: Register | null, claim: Claim, signal: AbortSignal): Promise<void> {
    const token = `${this.name}-${this.world.streams}-${this.#writes++}`;
    const { won, register } = await this.settle(this.witness, { expected, claim, token }, signal);
    if (signal.aborted) return;
    const unchanged = register.generation === this.register?.generation;
    if (!won && !unchanged) {
      this.#letGo();
      return;
    }
    this.register = register;
    // Who is told that nothing has changed is what it was (settle() tells nobody so).
    this.role = register.mode;
    const together = this.world.hosts.filter(({ role }) => role === 'alone').length;
    this.world.together = Math.max(this.world.together, together);
  }

  #letGo(): void {
    Object.assign(this, { role: 'idle', stream: '', peer: null, register: null });
  }
}

const STEPS: readonly Step[] = ['boots', 'links', 'loses its link', 'crashes', 'is late'];

interface Turn {
  readonly host: number;
  readonly other: number;
  readonly step: Step;
  /** Turns of the event loop until the next. */
  readonly pause: number;
}

const turn: fc.Arbitrary<Turn> = fc.record({
  host: fc.nat(2),
  other: fc.nat(2),
  step: fc.constantFrom(...STEPS, 'boots', 'links', 'links', 'loses its link'),
  pause: fc.nat(4),
});
/** The guest runs on the first host, and is protected by the second, unless the witness loses something. */
const BEGINNING: readonly Turn[] = [
  { host: 0, other: 0, step: 'boots', pause: 4 },
  { host: 0, other: 1, step: 'links', pause: 4 },
];

const fates = fc.array(fc.constantFrom<Fate>('done', 'done', 'lost', 'unheard', 'late'), { maxLength: 12 });

interface Story {
  readonly count: number;
  readonly turns: readonly Turn[];
  readonly fates: readonly (readonly Fate[])[];
}

const stories: fc.Arbitrary<Story> = fc.record({
  count: fc.integer({ min: 2, max: 3 }),
  turns: fc.array(turn, { minLength: 4, maxLength: 24 }),
  fates: fc.tuple(fates, fates, fates),
});

async function tell({ count, turns, fates }: Story, settling: Settle): Promise<World> {
  const memory = createMemoryWitness();
  const world: World = { together: 0, streams: 0, hosts: [] };
  for (const [index, name] of ['one', 'two', 'three'].slice(0, count).entries()) {
    world.hosts.push(new Host(name, new LossyWitness(memory, fates[index] ?? []), world, settling));
  }
  for (const { host, other, step, pause } of [...BEGINNING, ...turns]) {
    const acting = world.hosts[host % count];
    const linked = world.hosts[other % count];
    if (acting && linked) acting.take(step, linked);
    for (let turns = 0; turns < pause; turns++) await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(world.hosts.map((each) => each.rest()));
  return world;
}

describe('hosts and their register', function () {
  this.timeout(300_000);

  it('never are two alone, whatever the witness loses', async () => {
    let takeovers = 0;
    let alones = 0;
    await fc.assert(
      fc.asyncProperty(stories, async (story) => {
        const { together, hosts } = await tell(story, truly);
        expect(together).to.be.at.most(1);
        const running = hosts.find(({ role }) => role === 'alone');
        if (running) alones++;
        if (running && running.name !== 'one') takeovers++;
      }),
      { numRuns: 2000 },
    );
    expect(alones, 'somebody runs now and then').to.be.above(100);
    expect(takeovers, 'and somebody has taken over').to.be.above(10);
  });

  for (const won of [true, false]) {
    it(`a lost reply that is taken for a ${won ? 'yes' : 'no'} is found out`, async () => {
      const { failed } = await fc.check(
        fc.asyncProperty(stories, async (story) => {
          const { together } = await tell(story, mistaken(won));
          expect(together).to.be.at.most(1);
        }),
        { numRuns: 5000 },
      );
      expect(failed).to.equal(true);
    });
  }
});
