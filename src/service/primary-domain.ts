// The world of one domain on the primary: the domain itself, its gate, and where its output goes.
//
//   domain ─output$─▶ tap, byte gate ─▶ console
//          ─network─▶ gates that the hypervisor brings ─▶ network

import type { Subscription } from 'rxjs';
import type { PrimaryDomainConfig } from '../config/schema.js';
import type { DomainEvent, DomainInfo, MachineChange, SourceDomain } from '../hypervisor/port.js';
import { ByteGate } from '../output/byte-gate.js';
import { CompositeGate } from '../output/composite-gate.js';
import type { OutputGate } from '../output/gate.js';
import { openConsole, openFile, type ConsoleWriter } from './console.js';
import type { PrimaryDependencies } from './dependencies.js';
import { withLimits } from './domain-limits.js';
import { DomainStop } from './domain-stop.js';
import { PAGE_SIZE } from '../stream/format.js';
import type { Logger } from './log.js';

export interface PrimaryDomainHooks {
  readonly pressure: (on: boolean) => void;
  readonly event: (event: DomainEvent) => void;
  readonly machineChange: (change: MachineChange) => void;
  /** By what the domain was stopped, if not by us; null: it runs again. */
  readonly stoppedBy: (stoppedBy: string | null) => void;
}

export interface PrimaryDomain {
  readonly domain: SourceDomain;
  /** What it is now: of another machine when it has become one. */
  info: DomainInfo;
  readonly stop: DomainStop;
  /** Of all ways out of the domain. */
  readonly gate: OutputGate;
  /** Of it, what is sealed before the domain is suspended: the gates that the hypervisor brings. */
  readonly sealedBefore: OutputGate;
  /** And after. */
  readonly sealedAfter: OutputGate;
  /** Closes the outputs; the domain is destroyed before. */
  close(): void;
}

/** Fails as openSource does, or with Node's system error if an output cannot be opened. */
export async function openPrimaryDomain(
  config: PrimaryDomainConfig,
  dependencies: PrimaryDependencies,
  hooks: PrimaryDomainHooks,
  log: Logger,
): Promise<PrimaryDomain> {
  const { output, checkpoint } = config;
  const outputs: ConsoleWriter[] = [];
  let domain: SourceDomain | null = null;
  let subscriptions: Subscription | null = null;
  const close = () => {
    subscriptions?.unsubscribe();
    for (const writer of outputs.splice(0)) writer.close();
  };
  try {
    const console = dependencies.openConsole?.(config) ?? openConsole(output.console);
    outputs.push(console);
    const tap = output.tap === undefined ? null : openFile(output.tap);
    if (tap) outputs.push(tap);
    const opened = await dependencies.openSource(config);
    domain = opened;
    for (const note of opened.notes ?? []) log.info(note);
    const info = await opened.info();
    const bytes = new ByteGate({ write: (piece) => console.write(piece), limitBytes: output.limitBytes });
    const network = new CompositeGate(opened.gates ?? []);
    const gate = new CompositeGate([bytes, network]);
    subscriptions = opened.output$.subscribe((piece) => {
      try {
        tap?.write(piece);
        bytes.push(piece);
      } catch (error) {
        // A writer that fails costs what it was to write, not the domain.
        log.error({ err: error }, 'output cannot be written');
      }
    });
    subscriptions.add(bytes.pressure$.subscribe(hooks.pressure));
    subscriptions.add(opened.events$.subscribe(hooks.event));
    subscriptions.add(opened.warnings$?.subscribe((warning) => log.warn(warning)));
    subscriptions.add(opened.machineChanges$?.subscribe(hooks.machineChange));
    subscriptions.add(opened.stoppedBy$?.subscribe(hooks.stoppedBy));
    const limited = withLimits(opened, checkpoint.hypervisorTimeoutMs, info.p2mSize * PAGE_SIZE);
    return {
      domain: limited,
      info,
      stop: new DomainStop(limited),
      gate,
      sealedBefore: network,
      sealedAfter: bytes,
      close,
    };
  } catch (error) {
    close();
    await domain?.destroy();
    throw error;
  }
}
