// What can be wrong with a call of a service.

import { RomulusError } from '../errors.js';

export type ServiceErrorCode =
  | 'UNKNOWN_DOMAIN' // the service has no domain of that name
  | 'TOO_FEW_DESCRIPTORS' // the process may not have as many files open as it needs
  | 'STOPPED'; // the service was stopped while it started

export class ServiceError extends RomulusError<ServiceErrorCode> {}

/** Why a domain was not switched over: it runs where it ran, but for STOPPED, where that is not known. */
export type SwitchoverErrorCode =
  | 'NOT_OWNER' // it does not run here
  | 'NOT_PAIRED' // nobody could take it over at once: no standby is linked, or the register does not name it
  | 'NOT_STANDBY' // it was to go to another host than the one that stands by
  | 'UNDER_WAY' // it is being switched over
  | 'NO_WITNESS' // no witness that both hosts see could say whose it is, or that one cannot be asked
  | 'UNDONE' // begun, and given up: the standby has not taken it over
  | 'STOPPED'; // the agent was stopped meanwhile

export class SwitchoverError extends RomulusError<SwitchoverErrorCode> {}
