// What every host says of the one domain.

import { PROTOCOL_VERSION, type Hello, type SharedPoint } from '../../../src/channel/contract.js';
import type { Point } from '../checkers/history.js';
import type { DomainInfo } from '../../../src/hypervisor/port.js';
import { Shared } from '../../../src/primary/shared.js';
import type { Held } from '../../../src/secondary/vigil-state.js';

export const DOMAIN = 'web';

export const INFO: DomainInfo = {
  name: DOMAIN,
  type: 2,
  p2mSize: 4096,
  state: 'running',
  hypervisor: 'counter',
  versionMajor: 1,
  versionMinor: 0,
};

export function helloOf(host: string, held: Held | null, shared: SharedPoint | null): Hello {
  return {
    domain: DOMAIN,
    protocolVersion: PROTOCOL_VERSION,
    software: 'simulated',
    host,
    hypervisor: INFO.hypervisor,
    domainType: INFO.type,
    p2mSize: INFO.p2mSize,
    inventory: {},
    streamUuid: held?.streamUuid ?? null,
    epoch: held?.epoch ?? null,
    pairing: held?.pairing ?? null,
    shared,
    images: null,
    blankDisks: [],
  };
}

/** In the place of a checkpoint's digest: no two points have the same. */
export function digestOf({ branch, count }: Point): bigint {
  return (BigInt(branch) << 32n) | BigInt(count);
}

/** What is taken out of a dirty log is nothing here: a checkpoint is a count. */
export function sharedCounts(): Shared {
  return new Shared({
    enableLogDirty: () => Promise.resolve(),
    cleanLogDirty: () => Promise.resolve({ dirtyCount: 0, faultCount: 0 }),
    disableLogDirty: () => Promise.resolve(),
  });
}
