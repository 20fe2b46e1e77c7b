// The main job, seen with one's own eyes: a machine is replicated between two processes, the primary is killed, and
// the machine goes on in the secondary. Everything that the report says is measured here, from outside the two
// services: by what their consoles, their reports and their processes show.

import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { EmptyError, ReplaySubject, Subscription } from 'rxjs';
import { stringify } from 'yaml';
import { parsePrimaryConfig } from '../../config/load.js';
import { asError, codeOf, RomulusError } from '../../errors.js';
import { monotonicMs } from '../../flow/clock.js';
import { firstWhere } from '../../flow/first-where.js';
import type {
  CheckpointReport,
  CommitReport,
  FailoverCompleted,
  FailoverEvent,
  FailoverStarted,
} from '../../report/reports.js';
import type { SupervisorMessage } from '../supervisor.js';
import { InterruptedError } from '../signals.js';
import { DemoChild } from './child.js';
import { measure, ticks, type DemoReport, type SeenOutput } from './measure.js';
import type { DemoMachine } from './machine.js';
import { formatCheckpoint, type Screen } from './screen.js';
import { LineCutter } from '../text.js';

export interface DemoOptions {
  readonly intervalMs: number;
  readonly machine: DemoMachine;
  /** The primary dies at a random moment of the epoch after this one, counted as the machine says. */
  readonly killAt: number;
}

const DOMAIN = 'demo';
/** Ports that the services' metrics get if they are free; else any. */
const PREFERRED_HTTP_PORTS = { primary: 9300, secondary: 9301 };
/** How long any single step may take before the demo gives up. */
const STEP_TIMEOUT_MS = 30_000;
/** How long the machine may take to boot, on a busy host without KVM. */
const BOOT_TIMEOUT_MS = 180_000;
/** How long the end of the tap may take after the primary's. */
const TAP_TIMEOUT_MS = 3000;
/** Ticks of the machine on the secondary that are watched before the demo ends. */
const TICKS_AFTER_TAKEOVER = 20;

const entry = fileURLToPath(new URL('../main.js', import.meta.url));

type Listening = Extract<SupervisorMessage, { kind: 'listening' }>;

/** @throws RomulusError NO_TAKEOVER, TIMEOUT, CHILD_ENDED; the signal's reason */
export async function runDemo(
  options: DemoOptions,
  screen: Screen,
  interruption: AbortSignal,
): Promise<DemoReport> {
  const directory = await mkdtemp(join(tmpdir(), 'romulus-demo-'));
  const run = new DemoRun(options, screen, directory, interruption);
  try {
    return await run.run();
  } catch (error) {
    if (!(error instanceof InterruptedError)) run.showLogs();
    throw error;
  } finally {
    await run.end();
    await rm(directory, { recursive: true, force: true });
  }
}

class DemoRun {
  readonly #options: DemoOptions;
  readonly #screen: Screen;
  readonly #directory: string;
  readonly #interruption: AbortSignal;
  readonly #children: DemoChild[] = [];
  readonly #subscriptions = new Subscription();
  readonly #checkpoints: CheckpointReport[] = [];
  readonly #commits: CommitReport[] = [];
  readonly #seenOnPrimary: SeenOutput[] = [];
  readonly #failover$ = new ReplaySubject<FailoverEvent>();
  #saidOnSecondary = '';

  constructor(options: DemoOptions, screen: Screen, directory: string, interruption: AbortSignal) {
    this.#options = options;
    this.#screen = screen;
    this.#directory = directory;
    this.#interruption = interruption;
  }

  async run(): Promise<DemoReport> {
    const screen = this.#screen;
    const options = this.#options;
    const tap = join(this.#directory, 'said-on-primary');
    const primaryConfig = await this.#primaryConfig(tap);
    // What the options make of it is checked here, where the error can name it, before anything is started.
    parsePrimaryConfig(primaryConfig);
    screen.say(
      `${options.machine.description} on a primary, a checkpoint every ${options.intervalMs} ms to a secondary. ` +
        `The primary will be killed after epoch ${options.killAt}${options.machine.boots ? ' of the ticking machine' : ''}.`,
    );
    const primary = await this.#startChild('primary', primaryConfig);
    this.#watchPrimary(primary.child);
    const secondaryConfig = await this.#secondaryConfig(primary.listening.port);
    const secondary = await this.#startChild('secondary', secondaryConfig);
    this.#watchSecondary(secondary.child);
    screen.say(`metrics: http://127.0.0.1:${String(primary.listening.httpPort)}/metrics (primary)`);
    screen.say(`         http://127.0.0.1:${String(secondary.listening.httpPort)}/metrics (secondary)`);

    const lastEpoch = options.killAt + (await this.#epochOfFirstTick(primary.child));
    await this.#step(
      'the checkpoints',
      firstWhere(
        secondary.child.messages$,
        (message) => message.kind === 'commit' && message.report.epoch >= lastEpoch,
      ),
      STEP_TIMEOUT_MS + options.killAt * options.intervalMs * 10,
    );
    // A random moment of the next epoch: in its pause, on its way, or between two.
    await sleep(Math.random() * options.intervalMs);
    const killedAtMs = primary.child.kill();
    screen.endStatus();
    screen.say('the primary was killed (SIGKILL)');

    const { started, completed } = await this.#step('the failover', this.#failover());
    screen.say(
      `the secondary took over at epoch ${completed.epoch} (${completed.reason}), ` +
        `${(completed.atMs - killedAtMs).toFixed(1)} ms after the kill`,
    );
    await this.#step('the machine on the secondary', this.#ticksOnSecondary(secondary.child));
    await this.#step("the killed primary's end", primary.child.closed);
    await secondary.child.stop();
    return measure({
      checkpoints: this.#checkpoints,
      commits: this.#commits,
      seenOnPrimary: this.#seenOnPrimary,
      saidOnPrimary: await this.#saidOnPrimary(tap),
      saidOnSecondary: this.#saidOnSecondary,
      killedAtMs,
      failoverStartedAtMs: started.atMs,
      runningAtMs: completed.atMs,
    });
  }

  /** The tap is written by a process of the primary's, which lives a moment longer. */
  async #saidOnPrimary(tap: string): Promise<string> {
    const limit = monotonicMs() + TAP_TIMEOUT_MS;
    const committed = this.#commits.at(-1)?.outputBytes ?? 0;
    for (;;) {
      const said = await readFile(tap, 'latin1');
      if (said.length >= committed || monotonicMs() > limit) return said;
      await sleep(10);
    }
  }

  /** Ends what is left; safe at any point of the run. */
  async end(): Promise<void> {
    this.#subscriptions.unsubscribe();
    this.#screen.endStatus();
    await Promise.all(this.#children.map((child) => child.stop()));
  }

  showLogs(): void {
    for (const child of this.#children) {
      this.#screen.say(`--- the ${child.name} ${child.ending}; the end of its log:`);
      for (const line of child.log.slice(-20)) this.#screen.say(line);
    }
  }

  async #startChild(
    name: 'primary' | 'secondary',
    config: object,
  ): Promise<{ child: DemoChild; listening: Listening }> {
    const file = join(this.#directory, `${name}.yaml`);
    await writeFile(file, stringify(config));
    const child = new DemoChild(name, entry, file);
    this.#children.push(child);
    const isListening = (message: SupervisorMessage): message is Listening => message.kind === 'listening';
    const listening = await this.#step(`the ${name}'s start`, firstWhere(child.messages$, isListening));
    return { child, listening };
  }

  #watchPrimary(child: DemoChild): void {
    const lines = new LineCutter((line) => this.#screen.say(`primary   │ ${line}`));
    this.#subscriptions.add(
      child.console$.subscribe(({ bytes, atMs }) => {
        this.#seenOnPrimary.push({ bytes: bytes.length, atMs });
        lines.push(bytes.toString('latin1'));
      }),
    );
    let acknowledgedAtMs: number | null = null;
    this.#subscriptions.add(
      child.messages$.subscribe((message) => {
        if (message.kind !== 'checkpoint') return;
        const now = monotonicMs();
        this.#checkpoints.push(message.report);
        const lagMs = acknowledgedAtMs === null ? null : now - acknowledgedAtMs;
        this.#screen.status(formatCheckpoint(message.report, lagMs), now);
        acknowledgedAtMs = now;
      }),
    );
  }

  #watchSecondary(child: DemoChild): void {
    const lines = new LineCutter((line) => this.#screen.say(`secondary │ ${line}`));
    this.#subscriptions.add(
      child.console$.subscribe(({ bytes }) => {
        const text = bytes.toString('latin1');
        this.#saidOnSecondary += text;
        lines.push(text);
      }),
    );
    this.#subscriptions.add(
      child.messages$.subscribe((message) => {
        if (message.kind === 'commit') this.#commits.push(message.report);
        if (message.kind === 'failover') this.#failover$.next(message.event);
      }),
    );
  }

  async #failover(): Promise<{ started: FailoverStarted; completed: FailoverCompleted }> {
    const first = await firstWhere(this.#failover$, () => true);
    const last = await firstWhere(this.#failover$, (event) => event.phase !== 'started');
    if (first.phase === 'started' && last.phase === 'completed') return { started: first, completed: last };
    const why = last.phase === 'failed' ? last.error.message : '';
    throw new RomulusError('NO_TAKEOVER', `the secondary did not take over: ${why}`);
  }

  /** The epoch in which the machine has come to ticking, as the outside sees it; 0 for one that does so at once. */
  async #epochOfFirstTick(primary: DemoChild): Promise<number> {
    if (!this.#options.machine.boots) return 0;
    let said = '';
    const ticking = firstWhere(primary.console$, ({ bytes }) => {
      said += bytes.toString('latin1');
      return ticks(said).length > 0;
    });
    await this.#step("the machine's first tick", ticking, BOOT_TIMEOUT_MS);
    return this.#commits.at(-1)?.epoch ?? 0;
  }

  async #ticksOnSecondary(child: DemoChild): Promise<void> {
    let lines = this.#saidOnSecondary.split('\n').length;
    if (lines > TICKS_AFTER_TAKEOVER) return;
    await firstWhere(child.console$, ({ bytes }) => {
      lines += bytes.toString('latin1').split('\n').length - 1;
      return lines > TICKS_AFTER_TAKEOVER;
    });
  }

  /** Waits for a step, but not for ever, nor past the end of a child or a Ctrl-C. */
  async #step<T>(what: string, promise: Promise<T>, limitMs = STEP_TIMEOUT_MS): Promise<T> {
    const interruption = this.#interruption;
    let onAbort: (() => void) | undefined;
    let timer: NodeJS.Timeout | undefined;
    const stop = new Promise<never>((_resolve, reject) => {
      onAbort = () => reject(asError(interruption.reason));
      interruption.addEventListener('abort', onAbort, { once: true });
      if (interruption.aborted) onAbort();
      timer = setTimeout(
        () => reject(new RomulusError('TIMEOUT', `${what} took longer than ${limitMs} ms`)),
        limitMs,
      );
    });
    try {
      return await Promise.race([promise, stop]);
    } catch (error) {
      if (!(error instanceof EmptyError)) throw error;
      const endings = this.#children.map((child) => `the ${child.name} ${child.ending}`).join(', ');
      throw new RomulusError('CHILD_ENDED', `${what} did not come: ${endings}`, {}, { cause: error });
    } finally {
      clearTimeout(timer);
      if (onAbort) interruption.removeEventListener('abort', onAbort);
    }
  }

  /** Of its own: it leaves nothing behind. The primary makes it. */
  get #token(): string {
    return join(this.#directory, 'token');
  }

  async #primaryConfig(tap: string): Promise<object> {
    const { machine, intervalMs } = this.#options;
    const domain = {
      // Nothing is said before there is somebody to protect it, so all that is said belongs to an epoch.
      start: 'with-secondary',
      checkpoint: { intervalMs },
      output: { console: 'stdout', tap },
    };
    return {
      listen: { host: '127.0.0.1', port: 0, token: this.#token },
      ...(await servesHttp('primary')),
      domains: [{ name: DOMAIN, hypervisor: machine.hypervisor, ...domain }],
    };
  }

  async #secondaryConfig(primaryPort: number | null): Promise<object> {
    const { hypervisor } = this.#options.machine;
    const primary = `ws://127.0.0.1:${String(primaryPort)}`;
    const output = { console: 'stdout' };
    return {
      ...(await servesHttp('secondary')),
      domains: [{ name: DOMAIN, primary, token: this.#token, hypervisor, output }],
    };
  }
}

async function servesHttp(side: 'primary' | 'secondary'): Promise<object> {
  const http = { host: '127.0.0.1', port: await freePort(PREFERRED_HTTP_PORTS[side]) };
  return { http, log: { level: 'info', format: 'json' } };
}

/** The port, if nobody listens there; else 0, for which the system picks one. */
async function freePort(preferred: number): Promise<number> {
  const probe = createServer();
  try {
    probe.listen(preferred, '127.0.0.1');
    await once(probe, 'listening');
    return preferred;
  } catch (error) {
    if (codeOf(error) === 'EADDRINUSE') return 0;
    throw error;
  } finally {
    if (probe.listening) await new Promise((resolve) => probe.close(resolve));
  }
}
