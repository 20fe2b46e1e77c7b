// The embedded hypervisor: x86 PCs in threads of this process, with no privileges and nothing to install.

import type { SourceDomain, TargetDomain } from '../port.js';
import { checkConfig, type EmbeddedConfig } from './config.js';
import { EmbeddedDomain } from './domain.js';

export type { BuiltinGuest, EmbeddedConfig, ImageGuest } from './config.js';

/**
 * A machine that stands before its first instruction; start() boots it.
 * @throws HypervisorError BAD_CONFIGURATION or FAILED
 */
export async function openEmbeddedSource(config: EmbeddedConfig): Promise<SourceDomain> {
  return EmbeddedDomain.open(await checkConfig(config, false));
}

/**
 * A machine without memory and context, to be filled; once started it is a domain that can be saved in its turn. Its
 * configuration must be the source's.
 * @throws HypervisorError BAD_CONFIGURATION or FAILED
 */
export async function openEmbeddedTarget(config: EmbeddedConfig): Promise<TargetDomain & SourceDomain> {
  return EmbeddedDomain.open(await checkConfig(config, true));
}
