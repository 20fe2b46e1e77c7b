// What can be wrong with a call of a service.

import { RomulusError } from '../errors.js';

export type ServiceErrorCode =
  | 'UNKNOWN_DOMAIN' // the service has no domain of that name
  | 'TOO_FEW_DESCRIPTORS' // the process may not have as many files open as it needs
  | 'STOPPED' // the service was stopped while it started
  | 'TAKEN_BACK' // the standby has started what was handed over to it, and its owner goes on with it
  | SwitchoverErrorCode
  | TrialErrorCode;

/** Why a domain was not switched over: it runs where it ran, but for STOPPED, of which that is not known. */
export type SwitchoverErrorCode =
  | 'NOT_OWNER' // it does not run here
  | 'NOT_PAIRED' // it does not run here with a standby that could go on at once, which the register has to know
  | 'NOT_STANDBY' // the host that it was to go to is not its standby
  | 'UNDER_WAY' // it is being switched over
  | 'NO_WITNESS' // there is no witness that both hosts see, or it cannot be asked
  | 'NOT_SWITCHED' // begun and given up: the standby did not take it over; it goes on here
  | 'STOPPED'; // the agent was stopped meanwhile

/** Why a domain was not tried; the hypervisor has codes of its own for what it cannot. */
export type TrialErrorCode =
  | 'BAD_SECONDS' // it runs for more than nothing, and for an hour at most
  | 'NOT_STANDBY' // it does not stand by here; the fact `standby` says where it does, if that is known
  | 'NOT_PAIRED' // no checkpoint is held that could be failed over to now, or the domain is being taken over
  | 'UNDER_WAY' // it is being tried
  | 'INTERRUPTED'; // begun, and given up for what is more important

export class ServiceError extends RomulusError<ServiceErrorCode> {}
