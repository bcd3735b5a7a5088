"""
The echo server as an application, for C{twistd -y}.
"""

from echo_service import Server

from twisted.application import service

application = service.Application("echo")
Server().setServiceParent(application)
