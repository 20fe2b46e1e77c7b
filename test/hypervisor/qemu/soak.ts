// A pair of agents on one machine, as it would live for a long time: the link is cut every ten seconds, whoever reads the
// logs stalls, somebody sends SIGHUP. All the while the guest stays protected but for the cuts, a client counts on in its
// one connection, and nothing grows.
//
//   each period    cut (momentary, 2 s, 20 s in turn) ─▶ ready again within 5 s ─▶ watched for the rest of ten seconds
//   at random      a log is not read for up to 10 s; SIGHUP to an agent
//
//   node dist/test/hypervisor/qemu/soak.js --minutes 60 [--seed N] [--report FILE]

import { writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { GuestFiles } from '../../../src/hypervisor/qemu/guest/build.js';
import { ensureGuest } from '../../support/qemu.js';
import { newSeed, pick, quantile, seeded, type Random } from '../../support/random.js';
import { successiveTicksOf } from '../support.js';
import type { Counter } from './lab-counter.js';
import type { Side } from './lab-link.js';
import { OneHost } from './one-host.js';
import { leftovers } from './soak-leftovers.js';
import { printed, Samples, type Row } from './soak-samples.js';

const CUTS = { momentary: 0, '2 s': 2000, '20 s': 20_000 } as const;
const SIDES = ['primary', 'secondary'] as const;
const PERIOD_MS = 10_000;
const READY_MS = 5000;
/** Watched after it is ready again, at least. */
const WATCHED_MS = 1000;
const LOOK_MS = 1000;
const PROGRESS_MS = 60_000;
/** Of /readyz, and of the client's next reply while the guest is protected. */
const ANSWER_MS = 5000;
const SIGHUP_CHANCE = 0.4;
const STALL_CHANCE = 0.7;
/** At most; longer than the silence of an agent that counts as its death. */
const STALL_MS = 10_000;
/** What a failure shows of what happened. */
const HISTORY_LINES = 300;
/** Messages and lines of an agent that are kept. */
const KEPT = 50;

type CutName = keyof typeof CUTS;

export interface SoakOptions {
  readonly minutes: number;
  readonly seed?: number;
  readonly say: (text: string) => void;
}

export interface SoakReport {
  readonly seed: number;
  readonly minutes: number;
  readonly cuts: Readonly<Record<CutName, number>>;
  readonly sighups: number;
  readonly stalls: number;
  readonly replies: number;
  /** From the end of a cut until both sides are ready. */
  readonly readyMs: Readonly<Record<'p50' | 'p99' | 'max', number>>;
  readonly memory: readonly Row[];
  /** What should not have been. */
  readonly faults: readonly string[];
}

export async function soak(files: GuestFiles, options: SoakOptions): Promise<SoakReport> {
  const { minutes, say, seed = newSeed() } = options;
  say(`seed ${seed}, ${minutes} minutes`);
  const pair = await OneHost.open(files, { logPipes: 'debug' });
  const run = new Soak(pair, seeded(seed), say);
  try {
    await run.run(minutes * 60_000);
  } catch (error) {
    run.fault(error instanceof Error ? error.message : String(error));
  } finally {
    run.end();
    await pair.close();
  }
  const report = run.report(seed, minutes);
  if (report.faults.length > 0) say(run.history());
  say(summary(report));
  return report;
}

class Soak {
  readonly #samples = new Samples();
  readonly #faults: string[] = [];
  readonly #history: { readonly atMs: number; readonly text: string }[] = [];
  readonly #readyMs: number[] = [];
  readonly #cuts: Record<CutName, number> = { momentary: 0, '2 s': 0, '20 s': 0 };
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #startedAt = Date.now();
  #client: Counter | null = null;
  #sighups = 0;
  #stalls = 0;
  #replies = 0;
  #lastReplyAt = 0;
  #lastTick: number | null = null;
  #isCut = false;

  constructor(
    readonly pair: OneHost,
    readonly random: Random,
    readonly say: (text: string) => void,
  ) {
    pair.link.changed = ({ side, ready, text }) => {
      this.#note(`the ${side} is ${ready ? 'ready' : `not ready: ${text}`}`);
      if (!ready && !this.#isCut) this.fault(`the ${side} was not ready though nothing was cut: ${text}`);
    };
  }

  async run(totalMs: number): Promise<void> {
    this.#client = await this.pair.count();
    const names = Object.keys(CUTS) as CutName[];
    let progressAt = Date.now() + PROGRESS_MS;
    for (let k = 0; Date.now() < this.#startedAt + totalMs; k++) {
      const name = names[k % names.length] ?? 'momentary';
      const until = Date.now() + PERIOD_MS;
      this.#disturb(CUTS[name] + PERIOD_MS);
      await this.#cut(name);
      do {
        await sleep(LOOK_MS);
        this.#look();
        this.#samples.take(this.pair);
      } while (Date.now() < until || this.#timers.size > 0);
      if (Date.now() < progressAt) continue;
      progressAt += PROGRESS_MS;
      this.say(this.#progress());
    }
    await this.#leave();
  }

  fault(text: string): void {
    this.#note(`FAULT: ${text}`);
    this.#faults.push(text);
  }

  end(): void {
    this.pair.link.changed = () => undefined;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  report(seed: number, minutes: number): SoakReport {
    const memory = this.#samples.table();
    const growing = memory.filter(({ isFlat }) => !isFlat);
    const [p50, p99, max] = [0.5, 0.99, 1].map((share) => quantile(this.#readyMs, share));
    return {
      ...{ seed, minutes, cuts: this.#cuts, sighups: this.#sighups, stalls: this.#stalls },
      replies: this.#replies,
      readyMs: { p50: p50 ?? NaN, p99: p99 ?? NaN, max: max ?? NaN },
      memory,
      faults: [...this.#faults, ...(growing.length > 0 ? [printed(growing)] : [])],
    };
  }

  history(): string {
    return this.#history
      .sort((a, b) => a.atMs - b.atMs) // a log is heard later than what it tells of
      .slice(-HISTORY_LINES)
      .map(({ atMs, text }) => `${new Date(atMs).toISOString().slice(11, 23)} ${text}`)
      .join('\n');
  }

  async #cut(name: CutName): Promise<void> {
    const { link } = this.pair;
    const ms = CUTS[name];
    this.#cuts[name]++;
    this.#isCut = true;
    this.#note(`cut, ${name}`);
    if (ms === 0) {
      const connections = link.connections.length;
      const endedAt = Date.now();
      link.order({ cut: true });
      await this.#again(name, connections + 1, endedAt);
      return;
    }
    link.order({ mode: 'silent', cut: true });
    const endsAt = Date.now() + ms;
    while (Date.now() < endsAt) {
      await sleep(Math.min(LOOK_MS, Math.max(1, endsAt - Date.now())));
      this.#look();
    }
    const connections = link.connections.length;
    const endedAt = Date.now();
    link.order({ mode: 'forward' });
    this.#note('the cut is over');
    await this.#again(name, connections + 1, endedAt);
  }

  async #again(name: CutName, connection: number, endedAt: number): Promise<void> {
    const tookMs = (await this.pair.protectedAgain(connection, this.#client)) - endedAt;
    this.#isCut = false;
    this.#lastReplyAt = Date.now();
    this.#readyMs.push(tookMs);
    this.#note(`protected again ${tookMs} ms after the cut`);
    if (tookMs > READY_MS) {
      const load = loadavg()[0]?.toFixed(1) ?? '?';
      this.fault(`ready only ${tookMs} ms after a cut (${name}); the machine's load is ${load}`);
    }
    await sleep(WATCHED_MS);
  }

  /** Plans what else happens within the next `withinMs`. */
  #disturb(withinMs: number): void {
    const { pair, random } = this;
    if (random() < STALL_CHANCE) {
      const side = pick<Side>(random, SIDES);
      const ms = Math.round(random() * STALL_MS);
      this.#later(random() * withinMs, () => {
        this.#stalls++;
        this.#note(`the ${side}'s log is not read for ${ms} ms`);
        pair.logs?.[side].stall(ms);
      });
    }
    if (random() < SIGHUP_CHANCE) {
      const side = pick<Side>(random, SIDES);
      this.#later(random() * withinMs, () => {
        this.#sighups++;
        this.#note(`SIGHUP to the ${side}`);
        process.kill(pair[side].pid, 'SIGHUP');
      });
    }
  }

  #later(ms: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      try {
        act();
      } catch (error) {
        this.fault(String(error));
      }
    }, ms);
    this.#timers.add(timer);
  }

  /** Fails if anything is wrong; forgets what was heard and is well. */
  #look(): void {
    const { pair } = this;
    const trouble = pair.trouble() ?? this.#client?.wrong ?? '';
    this.#hear();
    if (trouble !== '') throw new Error(trouble);
    const now = Date.now();
    for (const side of SIDES) {
      if (now - (pair.link.ready.get(side)?.atMs ?? 0) > ANSWER_MS) {
        throw new Error(`/readyz of the ${side} does not answer`);
      }
    }
    if (this.#client && !this.#isCut && now - this.#lastReplyAt > ANSWER_MS)
      throw new Error('the client has no reply');
  }

  #hear(): void {
    const { pair } = this;
    for (const agent of [pair.primary, pair.secondary]) {
      for (const { level, msg, error, atMs } of agent.log.splice(0)) {
        if (level !== 'debug')
          this.#note(`${agent.side}: ${level}: ${msg}${error === null ? '' : `: ${error}`}`, atMs);
      }
      agent.messages.splice(0, Math.max(0, agent.messages.length - KEPT));
    }
    const last = this.#client?.replies.at(-1);
    if (last && last.value > this.#replies) {
      this.#replies = last.value;
      this.#lastReplyAt = Date.now();
      this.#client?.replies.splice(0, this.#client.replies.length - 1);
    }
    this.#hearTicks();
  }

  /** Of the console, whole lines. */
  #hearTicks(): void {
    const { primary } = this.pair;
    const end = primary.console.lastIndexOf('\n') + 1;
    const ticks = successiveTicksOf(primary.console.slice(0, end));
    primary.console = primary.console.slice(end);
    const [first] = ticks;
    if (first !== undefined && this.#lastTick !== null && first !== this.#lastTick + 1) {
      throw new Error(`the console: tick ${first} after tick ${this.#lastTick}`);
    }
    this.#lastTick = ticks.at(-1) ?? this.#lastTick;
  }

  /** Both agents are told to end; what they leave is a fault. */
  async #leave(): Promise<void> {
    const { pair } = this;
    this.#isCut = true;
    this.#client?.end();
    for (const agent of [pair.primary, pair.secondary]) {
      process.kill(agent.pid, 'SIGTERM');
      await agent.closed();
      this.#note(agent.end ?? '');
      if (agent.end?.endsWith('code 0') !== true) this.fault(agent.end ?? `the ${agent.side} did not end`);
    }
    for (const left of leftovers(pair)) this.fault(`left behind: ${left}`);
  }

  #progress(): string {
    const minutes = ((Date.now() - this.#startedAt) / 60_000).toFixed(1);
    const cuts = Object.values(this.#cuts).reduce((sum, count) => sum + count, 0);
    return `${minutes} min: ${cuts} cuts, ready again after ${quantile(this.#readyMs, 0.5)} ms (most ${Math.max(
      ...this.#readyMs,
    )}), ${this.#sighups} SIGHUP, ${this.#stalls} stalls, ${this.#replies} replies, ${this.#faults.length} faults`;
  }

  #note(text: string, atMs = Date.now()): void {
    this.#history.push({ atMs, text });
    if (this.#history.length > 2 * HISTORY_LINES) this.#history.splice(0, HISTORY_LINES);
  }
}

function summary(report: SoakReport): string {
  const { seed, cuts, sighups, stalls, replies, readyMs, memory, faults } = report;
  return [
    `seed ${seed}: cuts ${JSON.stringify(cuts)}, SIGHUP ${sighups}, stalled logs ${stalls}, replies ${replies}`,
    `ready again after a cut: p50 ${readyMs.p50} ms, p99 ${readyMs.p99} ms, max ${readyMs.max} ms`,
    printed(memory),
    faults.length === 0 ? 'no fault' : `${faults.length} FAULTS:\n${faults.join('\n')}`,
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '60' },
      seed: { type: 'string' },
      report: { type: 'string' },
    },
  });
  const files = await ensureGuest();
  if (!files) process.exit(2);
  const report = await soak(files, {
    minutes: Number(values.minutes),
    ...(values.seed !== undefined && { seed: Number(values.seed) }),
    say: (text) => process.stdout.write(`${text}\n`),
  });
  if (values.report !== undefined) writeFileSync(values.report, `${JSON.stringify(report, null, 2)}\n`);
  process.exit(report.faults.length === 0 ? 0 : 1);
}
