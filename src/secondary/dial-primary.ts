// One attempt of a domain's secondary to reach its primary: what the configuration and the vigil say, as a dial.

import type { SecondaryLink } from '../channel/contract.js';
import { dial } from '../channel/dial/dialer.js';
import type { ChannelTls } from '../channel/credentials/security.js';
import type { ChannelToken } from '../channel/credentials/token.js';
import type { SecondaryDomainConfig } from '../config/schema.js';
import type { DomainInfo } from '../hypervisor/port.js';
import { VERSION } from '../version.js';
import type { Held } from './vigil-state.js';

export interface SecondaryDial {
  readonly config: SecondaryDomainConfig;
  readonly tls: ChannelTls | undefined;
  readonly token: ChannelToken | undefined;
  readonly info: DomainInfo;
  readonly role: 'standby' | 'active';
  readonly held: Held | null;
  readonly signal: AbortSignal;
}

/** Rejects as the channel's dial() does. */
export function dialPrimary({
  config,
  tls,
  token,
  info,
  role,
  held,
  signal,
}: SecondaryDial): Promise<SecondaryLink> {
  const { connectTimeoutMs } = config.failover;
  return dial({
    url: config.primary,
    plaintext: config.plaintext,
    tls,
    token,
    primaryName: config.primaryName,
    connectTimeoutMs,
    handshakeTimeoutMs: connectTimeoutMs,
    software: VERSION,
    signal,
    hello: {
      domain: config.name,
      hypervisor: info.hypervisor,
      domainType: info.type,
      p2mSize: info.p2mSize,
      inventory: info.inventory ?? {},
      role,
      streamUuid: held?.streamUuid ?? null,
      epoch: held?.epoch ?? null,
    },
  });
}
