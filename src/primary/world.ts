// The world of one domain on the primary: the domain itself, its gate, and where its output goes.
//
//   domain ─output$─▶ tap, byte gate ─▶ console
//          ─network─▶ gates that the hypervisor brings ─▶ network

import { Subscription } from 'rxjs';
import type { PrimaryDomainConfig } from '../config/schema.js';
import type { DomainEvent, DomainInfo, MachineChange, SourceDomain } from '../hypervisor/port.js';
import { ByteGate } from '../output/byte-gate.js';
import { CompositeGate } from '../output/composite-gate.js';
import type { Outlet } from '../output/outlet.js';
import { monotonicMs } from '../flow/clock.js';
import type { Reloaded } from '../flow/reloaded.js';
import type { Work } from '../flow/work.js';
import { consoleFile, consoleReports, LAST_OUTPUT_MS, openConsole, reopenAll } from '../output/console.js';
import type { PrimaryDependencies } from '../report/dependencies.js';
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
}

export interface World {
  readonly domain: SourceDomain;
  /** What it is now: of another machine when it has become one. */
  info: DomainInfo;
  readonly stop: DomainStop;
  /** Of all ways out of the domain: the gates that the hypervisor brings are sealed before the domain is suspended. */
  readonly gate: OrderedGate;
  /** Opens the outputs' files anew, by their names. */
  reopen(): Promise<readonly Reloaded[]>;
  /** Octets of the held ones that were let out, and that the console has not taken. */
  readonly waitingBytes: number;
  /** Closes the outputs, when what was let out has left or the time for that is over. The domain is destroyed before. */
  close(): Promise<void>;
}

/** @throws as openSource, or Node's system error if an output cannot be opened */
export async function openWorld(
  config: PrimaryDomainConfig,
  dependencies: PrimaryDependencies,
  hooks: WorldHooks,
  tasks: Work,
  log: Logger,
): Promise<World> {
  const { output, checkpoint } = config;
  let domain: SourceDomain | null = null;
  let console: Outlet | null = null;
  let tap: Tap | null = null;
  let bytes: ByteGate | null = null;
  const subscriptions = new Subscription();
  const close = async () => {
    subscriptions.unsubscribe();
    const [unsaidBytes] = await Promise.all([bytes?.end(LAST_OUTPUT_MS), tap?.close()]);
    if (unsaidBytes) log.warn({ unsaidBytes }, 'the console did not take the end of what was let out');
    console?.close();
  };
  try {
    const outlet = await openConsole(output.console, dependencies.openConsole?.(config), log);
    console = outlet;
    if (output.tap !== undefined) tap = await Tap.open(output.tap, log);
    const outputs = [
      { file: consoleFile(output.console), output: console },
      { file: output.tap, output: tap },
    ];
    const opened = await dependencies.openSource(config);
    domain = opened;
    for (const note of opened.notes ?? []) log.info(note);
    const info = await opened.info();
    const gate = new ByteGate({
      outlet: fresh(outlet, hooks.mayLeaveUntilMs),
      limitBytes: output.limitBytes,
      ...consoleReports(log),
    });
    bytes = gate;
    subscriptions.add(
      opened.output$.subscribe((piece) => {
        tap?.push(piece);
        gate.push(piece);
      }),
    );
    subscriptions.add(gate.pressure$.subscribe(hooks.pressure));
    subscriptions.add(opened.events$.subscribe(hooks.event));
    subscriptions.add(opened.warnings$?.subscribe((warning) => log.warn(warning)));
    subscriptions.add(opened.machineChanges$?.subscribe(hooks.machineChange));
    subscriptions.add(opened.stoppedBy$?.subscribe(hooks.stoppedBy));
    const limited = withLimits(opened, checkpoint.hypervisorTimeoutMs, info.p2mSize * PAGE_SIZE);
    return {
      domain: limited,
      info,
      stop: new DomainStop(limited),
      gate: new OrderedGate(new CompositeGate(opened.gates ?? []), gate, tasks),
      get waitingBytes() {
        return gate.waitingBytes;
      },
      reopen: () => reopenAll(outputs, log),
      close,
    };
  } catch (error) {
    await domain?.destroy();
    await close();
    throw error;
  }
}

/** Takes what comes in time. */
function fresh(outlet: Outlet, untilMs: () => number): Outlet {
  return {
    write: (piece) => (monotonicMs() <= untilMs() ? outlet.write(piece, untilMs()) : 0),
    close: () => outlet.close(),
  };
}
