// The world of one domain on the primary: the domain itself, its gate, and where its output goes.
//
//   domain ─output$─▶ tap, byte gate ─▶ console
//          ─network─▶ gates that the hypervisor brings ─▶ network

import { Subscription } from 'rxjs';
import type { PrimaryDomainConfig } from '../config/agent.js';
import type { DomainEvent, DomainInfo, MachineChange, SourceDomain } from '../hypervisor/port.js';
import type { DiskEvent } from '../hypervisor/port-disks.js';
import { ByteGate } from '../output/byte-gate.js';
import { CompositeGate } from '../output/composite-gate.js';
import { FreshOutlet } from '../output/fresh-outlet.js';
import type { Reloaded } from '../flow/reloaded.js';
import type { Work } from '../flow/work.js';
import { consoleFile, consoleReports, LAST_OUTPUT_MS, openConsole, reopenAll } from '../output/console.js';
import type { PrimaryDependencies } from '../report/dependencies.js';
import type { Estate } from '../report/estate.js';
import { withLimits } from './limits.js';
import { OrderedGate } from './ordered-gate.js';
import { DomainStop } from '../hypervisor/standstill.js';
import { PAGE_SIZE } from '../stream/format.js';
import type { Logger } from '../report/log.js';
import { Tap } from '../output/tap.js';

export interface WorldHooks {
  readonly pressure: (on: boolean) => void;
  readonly event: (event: DomainEvent) => void;
  /**
   * Until when what was let out may still leave, of the monotonic clock: later, this process was stopped since, and may
   * have been replaced.
   */
  readonly mayLeaveUntilMs: () => number;
  readonly machineChange: (change: MachineChange) => void;
  /** By what the domain was stopped, if not by us; null: it runs again. */
  readonly stoppedBy: (stoppedBy: string | null) => void;
  readonly disk: (event: DiskEvent) => void;
}

export interface World {
  readonly domain: SourceDomain;
  /** What it is now: of another machine when it has become one. */
  info: DomainInfo;
  readonly stop: DomainStop;
  /** It ran already. */
  readonly inherited: boolean;
  /** Of all ways out of the domain: the gates that the hypervisor brings are sealed before the domain is suspended. */
  readonly gate: OrderedGate;
  /** Opens the outputs' files anew, by their names. */
  reopen(): Promise<readonly Reloaded[]>;
  /** From here on the hooks are told, also what was before: its owner has it, and can end it. Once. */
  listen(): void;
  /** Octets of the held ones that were let out, and that the console has not taken. */
  readonly waitingBytes: number;
  /** Closes the outputs, when what was let out has left or the time for that is over. The domain is destroyed before. */
  close(): Promise<void>;
}

/**
 * `estate`: the domain runs already, and comes with its ways out.
 * @throws as openSource, or Node's system error if an output cannot be opened
 */
export async function openWorld(
  config: PrimaryDomainConfig,
  dependencies: PrimaryDependencies,
  hooks: WorldHooks,
  tasks: Work,
  log: Logger,
  estate: Estate | null = null,
): Promise<World> {
  const { output, checkpoint } = config;
  const had = estate ?? (await openEstate(config, dependencies, log));
  const { domain, gate, console, tap } = had;
  had.outlet.untilMs = hooks.mayLeaveUntilMs;
  const subscriptions = new Subscription();
  subscriptions.add(had.feed);
  const close = async () => {
    subscriptions.unsubscribe();
    const [unsaidBytes] = await Promise.all([gate.end(LAST_OUTPUT_MS), tap?.close()]);
    if (unsaidBytes) log.warn({ unsaidBytes }, 'the console did not take the end of what was let out');
    console.close();
  };
  try {
    const outputs = [
      { file: consoleFile(output.console), output: console },
      { file: output.tap, output: tap },
    ];
    for (const note of domain.notes ?? []) log.info(note);
    const info = await domain.info();
    const limited = withLimits(domain, checkpoint.hypervisorTimeoutMs, info.p2mSize * PAGE_SIZE);
    return {
      domain: limited,
      info,
      stop: new DomainStop(limited),
      inherited: estate !== null,
      gate: new OrderedGate(new CompositeGate(domain.gates ?? []), gate, tasks),
      get waitingBytes() {
        return gate.waitingBytes;
      },
      reopen: () => reopenAll(outputs, log),
      listen: () => {
        subscriptions.add(gate.pressure$.subscribe(hooks.pressure));
        subscriptions.add(domain.warnings$?.subscribe((warning) => log.warn(warning)));
        subscriptions.add(domain.machineChanges$?.subscribe(hooks.machineChange));
        subscriptions.add(domain.stoppedBy$?.subscribe(hooks.stoppedBy));
        subscriptions.add(domain.disks?.events$.subscribe(hooks.disk));
        subscriptions.add(domain.events$.subscribe(hooks.event));
      },
      close,
    };
  } catch (error) {
    await domain.destroy();
    await close();
    throw error;
  }
}

/** A domain that is made now, held from its first word. */
async function openEstate(
  config: PrimaryDomainConfig,
  dependencies: PrimaryDependencies,
  log: Logger,
): Promise<Estate> {
  const { output } = config;
  const console = await openConsole(output.console, dependencies.openConsole?.(config), log);
  let tap: Tap | null = null;
  try {
    if (output.tap !== undefined) tap = await Tap.open(output.tap, log);
    const domain = await dependencies.openSource(config);
    const outlet = new FreshOutlet(console);
    const gate = new ByteGate({ outlet, limitBytes: output.limitBytes, ...consoleReports(log) });
    const feed = domain.output$.subscribe((piece) => {
      tap?.push(piece);
      gate.push(piece);
    });
    return { domain, gate, feed, outlet, console, tap };
  } catch (error) {
    await tap?.close();
    console.close();
    throw error;
  }
}
