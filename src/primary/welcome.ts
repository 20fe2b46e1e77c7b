// Which secondary is welcome: the judgement over a hello, and the welcome's fields.

import { randomUUID } from 'node:crypto';
import { ChannelError, type DomainOffer, type Hello } from '../channel/contract.js';
import type { PrimaryDomainConfig } from '../config/agent.js';
import type { Fact } from '../errors.js';
import { compareInventories, describeDifference, type Inventory } from '../hypervisor/inventory.js';
import type { DomainInfo } from '../hypervisor/port.js';
import { DomainType, PAGE_SIZE, domainTypeName } from '../stream/format.js';
import { isAlone } from '../failover/mandate.js';
import { isContinuous, type LifeState } from './life-state.js';
import type { Shared } from './shared.js';

/** What a welcome needs to know of how the domain is configured. */
export interface Terms extends Pick<PrimaryDomainConfig, 'name' | 'heartbeat'> {
  readonly checkpoint: Pick<PrimaryDomainConfig['checkpoint'], 'windowEpochs'>;
}

/** @throws ChannelError FENCED, UNKNOWN_DOMAIN, DOMAIN_MISMATCH, ALREADY_LINKED */
export function judgeHello(
  hello: Hello,
  config: Terms,
  info: DomainInfo | undefined,
  state: LifeState,
  host: string,
  shared: Pick<Shared, 'has'> | null,
): ReturnType<DomainOffer['welcome']> {
  const { name, checkpoint, heartbeat } = config;
  if (state.role === 'fenced') {
    throw new ChannelError('FENCED', `another secondary has taken ${name} over`, { domain: name });
  }
  if (!info || state.role === 'failed' || state.stopped) {
    throw new ChannelError('UNKNOWN_DOMAIN', `${name} does not run here`, { domain: name });
  }
  checkFit(name, info, hello);
  checkNoOther(hello, name, state);
  const streamUuid = randomUUID();
  const continuous = isContinuous(state, hello);
  return {
    host,
    streamUuid,
    continuous,
    // What a PV guest brings at the beginning of a stream is for an empty domain.
    resumes: info.type === DomainType.X86_HVM && shared?.has(hello.shared) === true,
    pairing: continuous && hello.pairing !== null ? hello.pairing : streamUuid,
    windowEpochs: checkpoint.windowEpochs,
    heartbeatIntervalMs: heartbeat.intervalMs,
    heartbeatTimeoutMs: heartbeat.timeoutMs,
  };
}

/** By the register another one protects the domain, until that says otherwise: it may come back at any moment. */
function checkNoOther(hello: Hello, name: string, { mandate }: LifeState): void {
  if (isAlone(mandate)) return;
  const other = mandate.register.standby ?? mandate.asking?.claim.standby ?? null;
  if (other === null || other === hello.host) return;
  throw new ChannelError('ALREADY_LINKED', `${other} protects ${name}, or may still`, {
    domain: name,
    standby: other,
  });
}

/** All that must be the same, by names that a person knows. What every domain has cannot be named by another fact. */
function inventoryOf(
  hypervisor: string,
  domainType: number,
  p2mSize: number,
  inventory: Inventory = {},
): Inventory {
  const type = `${domainTypeName(domainType)} (${domainType})`;
  const mebibytes = (p2mSize * PAGE_SIZE) / 2 ** 20;
  const memory = Number.isInteger(mebibytes) ? `${mebibytes} MiB` : `${p2mSize} pages`;
  const every = { hypervisor, type, memory };
  return { ...every, ...inventory, ...every };
}

function checkFit(name: string, info: DomainInfo, hello: Hello): void {
  const differences = compareInventories(
    inventoryOf(info.hypervisor, info.type, info.p2mSize, info.inventory),
    inventoryOf(hello.hypervisor, hello.domainType, hello.p2mSize, hello.inventory),
  );
  if (differences.length === 0) return;
  const facts: Record<string, Fact> = {};
  for (const difference of differences) {
    facts[difference.name] = difference.primary;
    facts[`${difference.name} offered`] = difference.secondary;
  }
  const said = differences.map(describeDifference).join('; ');
  throw new ChannelError('DOMAIN_MISMATCH', `the standby does not fit ${name}: ${said}`, facts);
}
