// A server's life, seen with one's own eyes: two hosts, each with its agent, one machine. The host that runs it is killed,
// and it goes on at the other; the host comes back, and it is protected again; it is switched over, and runs where it
// began. Everything that the report says is measured here, from outside the agents: by what their consoles, their
// reports and their processes show.

import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ReplaySubject, Subscription } from 'rxjs';
import { stringify } from 'yaml';
import { parseCluster } from '../../config/cluster.js';
import { RomulusError } from '../../errors.js';
import { monotonicMs } from '../../flow/clock.js';
import { firstWhere } from '../../flow/first-where.js';
import type { FailoverCompleted, FailoverEvent, FailoverStarted } from '../../report/reports.js';
import { ask } from '../control.js';
import { InterruptedError } from '../signals.js';
import type { SupervisorMessage } from '../supervisor.js';
import { LineCutter } from '../text.js';
import { DemoChild } from './child.js';
import { DEMO_HOSTS, demoCluster, DOMAIN, TAP, WITNESS, type DemoHost } from './cluster.js';
import type { DemoMachine } from './machine.js';
import { measure, ticks, type DemoReport, type Run } from './measure.js';
import { formatCheckpoint, type Screen } from './screen.js';
import { STEP_TIMEOUT_MS, Steps } from './steps.js';

export interface DemoOptions {
  readonly intervalMs: number;
  readonly machine: DemoMachine;
  /** Alpha dies at a random moment of the epoch after this one, counted as the machine says. */
  readonly killAt: number;
}

/** How long the machine may take to boot, on a busy host without KVM. */
const BOOT_TIMEOUT_MS = 180_000;
/** How long the end of the tap may take after alpha's. */
const TAP_TIMEOUT_MS = 3000;
/** Ticks of the machine that are watched on each host that it goes on at. */
const TICKS_WATCHED = 20;
/** Between two requests to switch over, while beta does not know yet that it may. */
const ASK_AGAIN_MS = 200;

const entry = fileURLToPath(new URL('../main.js', import.meta.url));

type Message<Kind extends SupervisorMessage['kind']> = Extract<SupervisorMessage, { readonly kind: Kind }>;

/** @throws RomulusError NO_TAKEOVER, NO_SWITCHOVER, NO_PORT, TIMEOUT, CHILD_ENDED; ConfigError; the signal's reason */
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

interface Failover {
  readonly killedAtMs: number;
  readonly started: FailoverStarted;
  readonly completed: FailoverCompleted;
}

class DemoRun {
  readonly #options: DemoOptions;
  readonly #screen: Screen;
  readonly #directory: string;
  readonly #steps: Steps;
  readonly #children: DemoChild[] = [];
  readonly #subscriptions = new Subscription();

  constructor(options: DemoOptions, screen: Screen, directory: string, interruption: AbortSignal) {
    this.#options = options;
    this.#screen = screen;
    this.#directory = directory;
    this.#steps = new Steps(interruption, () => this.#endings());
  }

  async run(): Promise<DemoReport> {
    await this.#prepare();
    const [alpha, beta] = await this.#startHosts();
    const first = await this.#protectedRun(alpha, beta);
    const failover = await this.#failover(alpha, beta);
    const commits = [...beta.commits];
    const said = await this.#tapped(commits.at(-1)?.outputBytes ?? 0);
    await this.#ticksOn(beta);

    const { restarted, reprotectedAtMs } = await this.#reprotection(beta);
    const { askedAtMs, switchedAtMs } = await this.#switchover(beta, restarted);
    const handedOver = [...restarted.commits];
    await this.#ticksOn(restarted);
    // First the one that runs the machine: the other one would go on alone.
    await restarted.stop();
    await beta.stop();
    return measure({
      checkpoints: first,
      first: { said, seen: alpha.seen, commits },
      second: runOf(beta, handedOver),
      saidAtLast: restarted.said,
      killedAtMs: failover.killedAtMs,
      failoverStartedAtMs: failover.started.atMs,
      runningAtMs: failover.completed.atMs,
      restartedAtMs: restarted.startedAtMs,
      ...{ reprotectedAtMs, askedAtMs, switchedAtMs },
    });
  }

  /** Ends what is left; safe at any point of the run. */
  async end(): Promise<void> {
    this.#subscriptions.unsubscribe();
    this.#screen.endStatus();
    await Promise.all(this.#children.map((child) => child.stop()));
  }

  showLogs(): void {
    for (const child of this.#children) {
      this.#screen.say(`--- ${child.host} ${child.ending}; the end of its log:`);
      for (const line of child.log.slice(-20)) this.#screen.say(line);
    }
  }

  /** @throws ConfigError: what the options make of it is checked here, before anything is started */
  async #prepare(): Promise<void> {
    const { machine, intervalMs, killAt } = this.#options;
    const cluster = await demoCluster(machine, intervalMs);
    for (const host of DEMO_HOSTS) parseCluster(cluster, host);
    await mkdir(join(this.#directory, WITNESS));
    await writeFile(this.#file, stringify(cluster));
    this.#screen.say(
      `${machine.description} on two hosts, alpha and beta: a checkpoint every ${intervalMs} ms. ` +
        `Alpha will be killed after epoch ${killAt}${machine.boots ? ' of the ticking machine' : ''}.`,
    );
  }

  async #startHosts(): Promise<readonly [DemoChild, DemoChild]> {
    const alpha = await this.#start('alpha');
    const beta = await this.#start('beta');
    for (const { child, httpPort } of [alpha, beta]) {
      this.#screen.say(`metrics of ${child.host.padEnd(5)}: http://127.0.0.1:${String(httpPort)}/metrics`);
    }
    return [alpha.child, beta.child];
  }

  /** Until the moment of alpha's death. */
  async #protectedRun(alpha: DemoChild, beta: DemoChild) {
    const { killAt, intervalMs } = this.#options;
    const lastEpoch = killAt + (await this.#epochOfFirstTick(alpha, beta));
    await this.#steps.wait(
      'the checkpoints',
      firstWhere(beta.messages$, (message) => message.kind === 'commit' && message.report.epoch >= lastEpoch),
      STEP_TIMEOUT_MS + killAt * intervalMs * 10,
    );
    // A random moment of the next epoch: in its pause, on its way, or between two.
    await sleep(Math.random() * intervalMs);
    return alpha.checkpoints;
  }

  /** The epoch in which the machine has come to ticking, as the outside sees it; 0 for one that does so at once. */
  async #epochOfFirstTick(alpha: DemoChild, beta: DemoChild): Promise<number> {
    if (!this.#options.machine.boots) return 0;
    const ticking = firstWhere(alpha.console$, () => ticks(alpha.said).length > 0);
    await this.#steps.wait("the machine's first tick", ticking, BOOT_TIMEOUT_MS);
    return beta.commits.at(-1)?.epoch ?? 0;
  }

  async #failover(alpha: DemoChild, beta: DemoChild): Promise<Failover> {
    const failover$ = new ReplaySubject<FailoverEvent>();
    this.#subscriptions.add(
      beta.messages$.subscribe((message) => {
        if (message.kind === 'failover') failover$.next(message.event);
      }),
    );
    const killedAtMs = alpha.kill();
    this.#screen.endStatus();
    this.#screen.say('alpha was killed (SIGKILL)');
    const ended = firstWhere(failover$, ({ phase }) => phase !== 'started');
    const completed = await this.#steps.wait('the failover', ended);
    const started = await this.#steps.wait(
      'the failover',
      firstWhere(failover$, () => true),
    );
    if (started.phase !== 'started' || completed.phase !== 'completed') {
      const why = completed.phase === 'failed' ? completed.error.message : '';
      throw new RomulusError('NO_TAKEOVER', `beta did not take over: ${why}`);
    }
    const { epoch, reason, atMs } = completed;
    const sinceMs = (atMs - killedAtMs).toFixed(1);
    this.#screen.say(`beta took over at epoch ${epoch} (${reason}), ${sinceMs} ms after the kill`);
    await this.#steps.wait("alpha's end", alpha.closed);
    return { killedAtMs, started, completed };
  }

  /** The tap is written by a process of alpha's, which lives a moment longer. */
  async #tapped(committedBytes: number): Promise<string> {
    const limit = monotonicMs() + TAP_TIMEOUT_MS;
    for (;;) {
      const said = await readFile(join(this.#directory, TAP), 'latin1');
      if (said.length >= committedBytes || monotonicMs() > limit) return said;
      await sleep(10);
    }
  }

  /** Alpha is started again, and nothing else is done. */
  async #reprotection(beta: DemoChild) {
    const isProtected = (message: SupervisorMessage): message is Message<'transition'> =>
      message.kind === 'transition' && message.report.link === 'replicating';
    const protectedAgain = firstWhere(beta.messages$, isProtected);
    // Told where it is waited for; it may fail before.
    protectedAgain.catch(() => undefined);
    const { child: restarted } = await this.#start('alpha');
    this.#screen.say('alpha was started again');
    const { report } = await this.#steps.wait('the protection by alpha', protectedAgain);
    const sinceMs = (report.atMs - restarted.startedAtMs).toFixed(1);
    this.#screen.say(`beta's machine is protected by alpha, ${sinceMs} ms after its start`);
    // Checkpoints as before.
    let more = TICKS_WATCHED;
    const commits = firstWhere(restarted.messages$, ({ kind }) => kind === 'commit' && --more <= 0);
    await this.#steps.wait('the checkpoints on alpha', commits);
    return { restarted, reprotectedAtMs: report.atMs };
  }

  /** As `romulus switchover` does it, through the socket of beta's agent. */
  async #switchover(beta: DemoChild, alpha: DemoChild) {
    const isOwner = (message: SupervisorMessage): message is Message<'role'> =>
      message.kind === 'role' && message.report.phase === 'owner';
    const owner = firstWhere(alpha.messages$, isOwner);
    owner.catch(() => undefined);
    const askedAtMs = await this.#steps.wait('the switchover', this.#askToSwitchOver(beta.host));
    const { report } = await this.#steps.wait("the switchover's end", owner);
    this.#screen.endStatus();
    const sinceMs = (report.atMs - askedAtMs).toFixed(1);
    this.#screen.say(`the machine was switched over to alpha, ${sinceMs} ms after the request`);
    return { askedAtMs, switchedAtMs: report.atMs };
  }

  /** The moment of the request that was granted. @throws RomulusError NO_SWITCHOVER */
  async #askToSwitchOver(host: DemoHost): Promise<number> {
    const limitMs = monotonicMs() + STEP_TIMEOUT_MS;
    for (;;) {
      const askedAtMs = monotonicMs();
      const path = `/v1/domains/${DOMAIN}/switchover`;
      const answer = await ask(join(this.#directory, `${host}.sock`), 'POST', path, {});
      if (answer.ok) return askedAtMs;
      // That the pair stands is written to the witness a moment after the first checkpoint.
      if (answer['code'] !== 'NOT_PAIRED' || askedAtMs > limitMs) {
        throw new RomulusError('NO_SWITCHOVER', `${host} refused: ${String(answer['message'])}`);
      }
      await sleep(ASK_AGAIN_MS);
    }
  }

  async #ticksOn(child: DemoChild): Promise<void> {
    const enough = (): boolean => ticks(child.said).length > TICKS_WATCHED;
    if (enough()) return;
    await this.#steps.wait(`the machine on ${child.host}`, firstWhere(child.console$, enough));
  }

  async #start(host: DemoHost): Promise<{ readonly child: DemoChild; readonly httpPort: number | null }> {
    const child = new DemoChild(host, entry, this.#file);
    this.#children.push(child);
    this.#show(child);
    const isListening = (message: SupervisorMessage): message is Message<'listening'> =>
      message.kind === 'listening';
    const { httpPort } = await this.#steps.wait(`${host}'s start`, firstWhere(child.messages$, isListening));
    return { child, httpPort };
  }

  #show(child: DemoChild): void {
    const lines = new LineCutter((line) => this.#screen.say(`${child.host.padEnd(5)} │ ${line}`));
    this.#subscriptions.add(child.console$.subscribe((bytes) => lines.push(bytes.toString('latin1'))));
    let acknowledgedAtMs: number | null = null;
    this.#subscriptions.add(
      child.messages$.subscribe((message) => {
        if (message.kind !== 'checkpoint') return;
        const now = monotonicMs();
        const lagMs = acknowledgedAtMs === null ? null : now - acknowledgedAtMs;
        this.#screen.status(formatCheckpoint(message.report, lagMs), now);
        acknowledgedAtMs = now;
      }),
    );
  }

  #endings(): string {
    return this.#children.map((child) => `${child.host} ${child.ending}`).join(', ');
  }

  get #file(): string {
    return join(this.#directory, 'cluster.yaml');
  }
}

function runOf({ said, seen }: DemoChild, commits: Run['commits']): Run {
  return { said, seen, commits };
}
