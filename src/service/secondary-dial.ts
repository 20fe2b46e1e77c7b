// One attempt of a domain's secondary to reach its primary: what the configuration and the machine say, as a dial.

import type { ChannelErrorCode, SecondaryLink } from '../channel/contract.js';
import { dial } from '../channel/dialer.js';
import type { ChannelTls } from '../channel/security.js';
import type { ChannelToken } from '../channel/token.js';
import type { SecondaryDomainConfig } from '../config/schema.js';
import type { DomainInfo } from '../hypervisor/port.js';
import { VERSION } from '../version.js';
import type { Held } from './secondary-state.js';

export interface SecondaryDial {
  readonly config: SecondaryDomainConfig;
  readonly tls: ChannelTls | undefined;
  readonly token: ChannelToken | undefined;
  /** That of the last link. */
  readonly lastToken: ChannelToken | undefined;
  readonly info: DomainInfo;
  readonly role: 'standby' | 'active';
  readonly held: Held | null;
  readonly signal: AbortSignal;
}

const MISFITS: ReadonlySet<string> = new Set<ChannelErrorCode>([
  'DOMAIN_MISMATCH',
  'PROTOCOL_VERSION',
  'TLS',
  'NAME_REFUSED',
  'NOT_AUTHENTICATED',
  'TOKEN_MISMATCH',
]);

/** A refusal that stands until somebody changes one of the two sides. */
export function isMisfit(code: string): boolean {
  return MISFITS.has(code);
}

/** Rejects as the channel's dial() does. */
export function dialPrimary({
  config,
  tls,
  token,
  lastToken,
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
    lastToken,
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
