// What can be wrong with a call of a service.

import { RomulusError } from '../errors.js';

export type ServiceErrorCode =
  | 'UNKNOWN_DOMAIN' // the service has no domain of that name
  | 'TOO_FEW_DESCRIPTORS' // the process may not have as many files open as it needs
  | 'NOT_PAIRED' // it does not run here with a standby that could go on
  | 'NOT_SWITCHED' // the standby did not take it over; it goes on here
  | 'STOPPED'; // the service was stopped while it started

export class ServiceError extends RomulusError<ServiceErrorCode> {}
