// The world of one domain on the primary: the domain itself, its gate, and where its output goes.
//
//   domain ─output$─▶ tap, byte gate ─▶ console
//          ─network─▶ gates that the hypervisor brings ─▶ network

import type { Subscription } from 'rxjs';
import type { PrimaryDomainConfig } from '../config/schema.js';
import type { DomainEvent, DomainInfo, SourceDomain } from '../hypervisor/port.js';
import { ByteGate } from '../output/byte-gate.js';
import { CompositeGate } from '../output/composite-gate.js';
import type { OutputGate } from '../output/gate.js';
import { openConsole, openFile, reopenAll, type ConsoleWriter } from './console.js';
import type { PrimaryDependencies } from './dependencies.js';
import { DomainStop } from './domain-stop.js';
import type { Logger } from './log.js';

export interface PrimaryDomainHooks {
  readonly pressure: (on: boolean) => void;
  readonly event: (event: DomainEvent) => void;
}

export interface PrimaryDomain {
  readonly domain: SourceDomain;
  readonly info: DomainInfo;
  readonly stop: DomainStop;
  /** Of all ways out of the domain. */
  readonly gate: OutputGate;
  /** Of it, what is sealed before the domain is suspended: the gates that the hypervisor brings. */
  readonly sealedBefore: OutputGate;
  /** And after. */
  readonly sealedAfter: OutputGate;
  /** Opens the outputs' files anew, by their names. */
  reopen(): Promise<void>;
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
  const { output } = config;
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
    domain = await dependencies.openSource(config);
    for (const note of domain.notes ?? []) log.info(note);
    const bytes = new ByteGate({ write: (piece) => console.write(piece), limitBytes: output.limitBytes });
    const network = new CompositeGate(domain.gates ?? []);
    const gate = new CompositeGate([bytes, network]);
    subscriptions = domain.output$.subscribe((piece) => {
      try {
        tap?.write(piece);
        bytes.push(piece);
      } catch (error) {
        // A writer that fails costs what it was to write, not the domain.
        log.error({ err: error }, 'output cannot be written');
      }
    });
    subscriptions.add(bytes.pressure$.subscribe(hooks.pressure));
    subscriptions.add(domain.events$.subscribe(hooks.event));
    const stop = new DomainStop(domain);
    return {
      domain,
      info: await domain.info(),
      stop,
      gate,
      sealedBefore: network,
      sealedAfter: bytes,
      reopen: () => reopenAll(outputs, log),
      close,
    };
  } catch (error) {
    close();
    await domain?.destroy();
    throw error;
  }
}
